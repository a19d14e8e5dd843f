// Tools to lower operators with: buffers of values in the forms that kernels need, and drafts of instructions on them.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "plan/emitter.h"
#include "plan/file_table.h"
#include "plan/graph.h"
#include "plan/weight_cache.h"

namespace rskip {

// Kinds of cached constants and weights; part of WeightCache keys.
enum CacheKind : int64_t { kRaw, kRows, kPaddedChannels, kBlockedConstant, kPackedConv, kPackedGemm, kPackedConv8, kPackedGemm8, kPackedIm2col8, kPackedDepthwise8, kExactWinograd8 };

// Weights that are packed by the time that instructions are made.
template <class T>
using Packed = std::shared_ptr<std::shared_ptr<const T>>;

// The bytes of constants, as long as their owner keeps them.
class ConstantReader {
 public:
  ConstantReader(const Program& program, std::span<const ConstantData> constants)
      : program_(&program), constants_(constants) {}
  int64_t id(ValueId id) const { return data(id).id; }
  // Null for none. Those in files are there once they were fetched.
  template <class T>
  const T* of(ValueId id) const {
    return id ? static_cast<const T*>(find(id)) : nullptr;
  }
  // Reads those of these that are in files into `memory`, where they stay until the next call; any may be none. Throws
  // EngineError when bytes are needed that a constant came without, or that can't be read.
  void fetch(std::span<const ValueId> ids, ReadMemory& memory);
  // The bytes of one, which may be in a file.
  void copy(ValueId id, void* to) const;
  // Null for one that isn't in a file.
  std::shared_ptr<const FileTable> table(ValueId id) const;

 private:
  const ConstantData& data(ValueId id) const {
    return constants_[static_cast<size_t>(program_->value(id).constant.number())];
  }
  const void* find(ValueId id) const;
  // Whether its bytes are in a file. Throws EngineError when they are nowhere.
  bool in_file(ValueId id) const;

  const Program* program_;
  std::span<const ConstantData> constants_;
  std::vector<std::pair<ValueId, const void*>> fetched_;
};

class Lowering {
 public:
  Lowering(const Program& program, std::span<const ConstantData> constants, WeightCache& weights, Precision precision, Isa isa);
  // For lower() alone.
  DraftGraph run();

  const Precision precision;  // as in lower()
  const Isa isa;

  const Value& value(ValueId id) const { return program_.value(id); }
  // Steps that write a value.
  int writers(ValueId id) const { return writers_[id]; }
  // Whether it is the output of a skippable block.
  bool written_by_skip(ValueId id) const { return written_by_skip_[id]; }
  Image image(NodeId node) const { return graph_.nodes[node].image; }
  // The step's first input and first output; false when one of them is no image.
  bool as_images(const Step& step, Image* x, Image* y, DType dtype = DType::kFloat32) const;

  bool is_constant(ValueId id) const { return id && value(id).constant; }
  // What stands for its bytes in a WeightCache key; -1 for none.
  int64_t constant_key(ValueId id) const { return id ? constants_.id(id) : -1; }
  // A large constant that stays in its file; null for any other value.
  std::shared_ptr<const FileTable> table(ValueId id);
  // A constant vector of `channels` elements, or of one for all, padded to whole blocks.
  NodeId constant_channels(ValueId id, int channels);
  // What `make` gives for these constants, of which all but the first may be none. Done once for equal keys, later and on
  // any thread.
  template <class T>
  Packed<T> pack(const WeightCache::Key& key, const std::vector<ValueId>& constants,
                 const std::function<std::shared_ptr<const T>(const ConstantReader&)>& make);
  // What `test` says of a constant, now; asked once for equal keys.
  bool ask(const WeightCache::Key& key, ValueId constant, const std::function<bool(const ConstantReader&)>& test);
  // The first element of a constant, or `otherwise` for none: for what is needed before instructions are made.
  template <class T>
  T scalar(ValueId id, T otherwise = {}) {
    return id ? *reinterpret_cast<const T*>(graph_.nodes[home(id)].fixed.offset) : otherwise;
  }

  // The buffer in which a value is first written.
  NodeId home(ValueId id);
  bool blocked_at_home(ValueId id) const;
  // The value in this form for the step at hand, converted if it isn't there yet.
  NodeId request(ValueId id, Form form);
  NodeId request_blocked(ValueId id, const Halo& halo = {});
  NodeId request_planar(ValueId id, const Halo& halo);
  // The same of bytes; the halo holds `zero`.
  NodeId request_image8(ValueId id, Form form, const Halo& halo = {}, uint8_t zero = 0);
  // One vector of whole blocks for each of `images` images, from (images, channels) elements or from one.
  NodeId request_channels(ValueId id, int channels, int images);

  // Where an instruction that makes `form` writes this value; its draft is handed to compute().
  NodeId target(ValueId id, Form form);
  void compute(Draft draft);
  // The value is the same memory as `node`.
  void view(ValueId id, NodeId node);
  MakeFn make_activation(NodeId from, NodeId to, const Activation& act) const;

 private:
  NodeId add_node(ValueId id, Form form);
  NodeId add_fixed(ValueId id, Form form, Place place);
  // `fill` writes into zeros; without it the bytes are copied.
  NodeId keep_constant(ValueId id, Form form, const WeightCache::Key& key, size_t bytes,
                       const std::function<void(const float* from, float* to)>& fill);
  NodeId constant_dense(ValueId id);
  NodeId constant_blocked(ValueId id);
  void widen(NodeId node, const Halo& halo);
  // Between buffers of one value or of two values of one shape. on_skip_of: done only when that block is skipped.
  void convert(NodeId from, NodeId to, BlockId on_skip_of = {});
  void add(Draft draft);

  // lower.cc: the walk over the program.
  void lower_step(const Step& step);
  void lower_dense(const Step& step);
  Draft dense_draft(const Step& step, const std::vector<NodeId>& operands);
  void lower_jump(const Step& step);
  void arrive(size_t step);
  void drop_conversions(size_t step);
  void enter_block(BlockId id);
  void decide_block(BlockId id);
  void lower_skip(BlockId id);
  void lower_exit(ExitId id);
  void lower_output(size_t port, ValueId answer);
  const Block& block(BlockId id) const { return program_.blocks[static_cast<size_t>(id.number())]; }

  const Program& program_;
  const ConstantReader constants_;
  WeightCache& weights_;
  DraftGraph graph_;

  Table<ValueId, NodeId> home_;  // the form in which a value is first written
  Table<ValueId, int> writers_;
  Table<ValueId, bool> written_by_skip_;

  struct Conversion {
    NodeId node;
    DraftId draft;
  };
  std::map<std::pair<ValueId, Form>, Conversion> conversions_;  // that every path to here has made
  std::multimap<size_t, DraftId> edges_;                        // target step -> drafts before the jump
  bool shared_outputs_ = false;                                 // those are lowered now
  ExitId taken_exit_;                                           // what it leaves to do is lowered now
  ValueId layer_;                                               // the output of the step that is lowered now
};

template <class T>
Packed<T> Lowering::pack(const WeightCache::Key& key, const std::vector<ValueId>& constants,
                         const std::function<std::shared_ptr<const T>(const ConstantReader&)>& make) {
  const auto packed = std::make_shared<std::shared_ptr<const T>>();
  graph_.packing.push_back({value(constants[0]).elements, [=, reader = constants_, &weights = weights_](ReadMemory& memory) {
                              *packed = weights.get<T>(key, [&] {
                                ConstantReader own = reader;
                                own.fetch(constants, memory);
                                return make(own);
                              });
                            }});
  return packed;
}

}  // namespace rskip
