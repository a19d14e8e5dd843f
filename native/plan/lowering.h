// From a program to a plan in four passes: lower.cc walks the steps and drafts instructions on buffers that have
// no place yet; fuse.cc joins some of them; plan_memory.cc decides what is updated in place and where everything lies;
// plan_builder.cc then makes the instructions.
#pragma once

#include <functional>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "plan/fill.h"
#include "plan/kernel_instructions.h"
#include "plan/plan.h"

namespace rskip {

using NodeId = int32_t;

// One buffer: a value in one form. Nodes that share memory (in place, views) are joined into one class.
struct Node {
  Form form = Form::kDense;
  int32_t value = kNone;
  Image image;             // of image forms
  size_t bytes = 0;        // of dense and channel forms
  Halo halo;               // what readers need
  int32_t layer = kNone;   // whose reader wants the halo, by its output; else `value` itself
  bool zero_tail = false;  // dense: the lanes up to a whole block must be zero
  bool arena = true;       // false: `fixed` is its place
  Place fixed;
  NodeId parent = kNone;  // union-find
};

// What a class of nodes is, once all readers are known.
struct NodeClass {
  int32_t first = -1, last = -1;  // drafts that define it first and use it last
  int32_t last_write = -1;
  int32_t writer = -1;  // the only draft that computes it; -1 if there are several
  Halo halo;
  int32_t layer = kNone;  // as Node::layer
  bool zero_tail = false;
  Place place;
};

class PlanBuilder;

// Makes the instruction when all places are known; null where nothing is to be done.
using MakeFn = std::function<InstructionPtr(const PlanBuilder&)>;

// What drafts that join convolutions need to know of them.
struct ConvDraft {
  ConvShape shape;
  ConvAlgorithm algorithm = ConvAlgorithm::kDirect;
  bool has_residual = false;
  int images = 1;
  std::function<ConvOperands(const PlanBuilder&, int)> operands;  // for an image
};

struct Draft {
  Code::Kind kind = Code::Kind::kRun;
  std::vector<NodeId> reads{};
  NodeId write = kNone;
  std::vector<NodeId> more_writes{};
  // Reads whose memory the result may take, best first. Only those of the result's own form and geometry.
  std::vector<NodeId> in_place{};
  // True if other reads of the same memory don't matter: every element is read just before it is written.
  bool elementwise = false;
  MakeFn make{};
  std::shared_ptr<const ConvDraft> conv{};  // null when it is none
  int32_t target_step = 0;   // branch, jump
  NodeId condition = kNone;  // branch
  int32_t block = kNone;     // enter, decide; and on-skip work
  bool on_skip = false;      // runs only when the block is skipped
  bool shared_output = false;
};

// One instruction that does make(n) for every image of a batch; all of them are of the same kind.
InstructionPtr make_sequence(std::vector<InstructionPtr> steps);
InstructionPtr for_images(int images, const std::function<InstructionPtr(int)>& make);

class PlanBuilder {
 public:
  PlanBuilder(const Program& program, std::span<const ConstantData> constants, const PlanContext& context);
  std::unique_ptr<const Plan> build();

  // For MakeFn, when places are known.
  Place place(NodeId node) const;
  BlockedOperand blocked(NodeId node, int n) const;
  PlanarOperand planar(NodeId node, int n) const;
  const KernelTable& table() const { return context_.table; }
  NodeId root(NodeId node) const;

 private:
  // lower.cc
  void lower_all();
  void lower(const Step& step);
  void enter_block(int32_t block);
  void decide_block(int32_t block);
  void arrive(int32_t step);
  void draft_gemm(const Step& step, int m, int k, int n, bool trans_b);
  MakeFn make_activation(NodeId from, NodeId to, const Activation& act) const;
  bool lower_conv(const Step& step);
  bool lower_conv_as_gemm(const Step& step, const Image& x);
  bool lower_gemm(const Step& step);
  bool lower_pool(const Step& step);
  bool lower_global_pool(const Step& step, bool max);
  bool lower_affine(const Step& step);
  bool lower_unary(const Step& step);
  bool lower_binary(const Step& step);
  bool lower_binary_channel(const Step& step, int wide);
  bool lower_spatial_mean(const Step& step);
  bool lower_concat(const Step& step);
  bool lower_slice(const Step& step);
  bool lower_pad(const Step& step);
  void draft_move(const Step& step, const BlockedMove& move);
  bool lower_reshape(const Step& step);
  void lower_dense(const Step& step);
  void lower_skip(int32_t block);
  void lower_output(size_t port);

  // nodes.cc
  const Value& value(int32_t id) const { return program_.value(id); }
  bool is_constant(int32_t id) const { return id != kNone && value(id).constant != kNone; }
  const ConstantData& constant(int32_t id) const { return constants_[static_cast<size_t>(value(id).constant)]; }
  // `value` may be kNone.
  int64_t constant_id(int32_t value_id) const { return value_id == kNone ? -1 : constant(value_id).id; }
  const float* constant_floats(int32_t value_id) const {
    return value_id == kNone ? nullptr : static_cast<const float*>(constant(value_id).data);
  }
  // Throws EngineError when the bytes of a constant are needed that came without them. `value` may be kNone.
  void require_data(int32_t value) const;
  NodeId add_node(int32_t value, Form form);
  NodeId add_fixed(int32_t value, Form form, Place place);
  NodeId keep_constant(int32_t value, Form form, const WeightCache::Key& key, const std::function<void(float*)>& fill,
                       size_t bytes);
  NodeId constant_dense(int32_t value);
  NodeId constant_channels(int32_t value, int channels);
  NodeId constant_blocked(int32_t value);
  // The buffer in which a value is first written.
  NodeId home(int32_t value);
  bool blocked_at_home(int32_t value) const;
  // The value in this form for the step at hand, converted if it isn't there yet.
  NodeId request(int32_t value, Form form);
  NodeId request_blocked(int32_t value, const Halo& halo = {});
  NodeId request_planar(int32_t value, const Halo& halo);
  // One vector of whole blocks for each of `images` images, from (images, channels) elements or from one.
  NodeId request_channels(int32_t value, int channels, int images);
  // Where a kernel that makes `form` writes this value; its draft goes through add_compute().
  NodeId target(int32_t value, Form form);
  void add_compute(Draft draft);
  // Between buffers of one value or of two values of one shape. on_skip_of: done only when that block is skipped.
  void draft_conversion(NodeId from, NodeId to, int32_t on_skip_of = kNone);
  void add_draft(Draft draft);
  void add_packing(int64_t elements, std::function<void()> pack) { packing_.push_back({elements, std::move(pack)}); }
  void add_edge(int32_t target_step);
  void drop_conversions(int32_t step);
  ImageLayout layout(NodeId node) const;
  void widen(NodeId node, const Halo& halo);

  // fuse.cc
  void fuse_convs();

  // plan_memory.cc
  void join(NodeId from, NodeId into);
  void find_uses();
  bool may_take(const Draft& draft, int32_t at, NodeId read) const;
  void update_blocks_in_place();
  void update_in_place();
  void note_size(int32_t value, int64_t bytes);
  void require_memory(int64_t bytes) const;
  void assign_places();

  // plan_builder.cc
  InstructionPtr make_instruction(const Draft& draft) const;
  void make_code();

  const Program& program_;
  std::span<const ConstantData> constants_;
  const PlanContext& context_;
  std::unique_ptr<Plan> plan_;

  std::vector<Node> nodes_;
  std::vector<Draft> drafts_;
  std::vector<NodeId> home_;      // the form in which a value is first written
  std::vector<int32_t> writers_;  // steps that write a value
  std::vector<bool> written_by_skip_;  // outputs of skippable blocks
  struct Packing {
    int64_t elements;
    std::function<void()> pack;
  };
  std::vector<Packing> packing_;

  struct Conversion {
    int32_t value;
    Form form;
    NodeId node;
    size_t draft;
  };
  std::vector<Conversion> conversions_;   // that every path to here has made
  std::multimap<int32_t, size_t> edges_;  // target step -> drafts before the jump
  std::vector<size_t> draft_of_step_;     // first draft of a step: where jumps to it land
  std::vector<size_t> draft_of_body_;     // of a block, after its gate has decided
  bool lowering_shared_outputs_ = false;
  int32_t layer_ = kNone;           // the output of the step that is being lowered
  std::vector<NodeClass> classes_;  // by root
  struct {
    int32_t value = kNone;
    int64_t bytes = 0;
  } largest_;  // buffer of the plan
};

}  // namespace rskip
