// The draft of a plan, which goes from pass to pass: buffers that have no place yet, and instructions on them.
//
//   lower   program -> graph     an instruction, or several, for each step
//   fuse    graph -> graph       instructions that become one
//   store_pairs graph -> graph   maps that are rounded as they are stored
//   place   graph -> placement   what shares memory, and where everything lies
//   emit    both -> plan         the instructions themselves
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "plan/fill.h"
#include "plan/kernel_instructions.h"
#include "plan/kernel_instructions8.h"
#include "plan/plan.h"
#include "program/geometry.h"
#include "program/program.h"

namespace rskip {

using NodeId = Index<struct NodeTag>;
using DraftId = Index<struct DraftTag>;
using BlockId = Index<struct BlockTag>;
using ExitId = Index<struct ExitTag>;

// One buffer: a value in one form.
struct Node {
  Form form = Form::kDense;
  ValueId value;
  Image image;             // of image forms
  size_t bytes = 0;        // of dense and channel forms
  int element = sizeof(float);  // bytes of one, of image forms
  bool pairs = false;      // a map of pairs: `image` has their channels
  Halo halo;               // what readers need
  uint8_t halo_byte = 0;   // what it holds: of bytes, their zero point
  ValueId layer;           // the layer that needs the halo, by its output; none if no layer does
  bool zero_tail = false;  // dense: the lanes up to a whole block must be zero
  bool arena = true;       // false: `fixed` is its place
  Place fixed;
  NodeId view_of;  // the node whose memory this one shares
};

class Emitter;

// Where bytes of files are read into, again and again. It keeps the most that it was asked for, and no huge pages: it is soon freed.
class ReadMemory {
 public:
  std::byte* take(size_t bytes) {
    if (bytes > bytes_) {
      memory_.reset();
      memory_.reset(new std::byte[bytes]);
      bytes_ = bytes;
    }
    return memory_.get();
  }

 private:
  std::unique_ptr<std::byte[]> memory_;
  size_t bytes_ = 0;
};

// Makes the instruction when all places are known; null where nothing is to be done.
using MakeFn = std::function<InstructionPtr(const Emitter&)>;

// What drafts that join convolutions need to know of them.
struct ConvDraft {
  ConvShape shape;
  ConvAlgorithm algorithm = ConvAlgorithm::kDirect;
  bool has_residual = false;
  Activation act;
  int images = 1;
  // For an image; of convolutions of floats or of bytes.
  std::function<ConvOperands(const Emitter&, int)> operands;
  std::function<ConvOperands8(const Emitter&, int)> operands8;
};

// A convolution or matrix product of bytes, to which an addition of its result may be joined.
struct AddedDraft8;
struct ProductDraft8 {
  int32_t zero = 0;  // of the result
  // What it is with `addition` of what lies in `residual`, which is one row for all of the result's if `one_row`, and with its
  // result in `to`.
  std::function<AddedDraft8(const Addition8& addition, NodeId residual, bool one_row, NodeId to)> add;
};
struct AddedDraft8 {
  MakeFn make;  // null: it can't be joined
  std::shared_ptr<const ProductDraft8> product;  // null: no more can
};
struct AddDraft8 {
  ops::Term terms[2];  // of the two reads
  bool one_row[2];     // a row for all of the result's
  Rounding rounding;
};

// A move of pixels, which may join the move behind it.
struct MoveDraft {
  BlockedMove move;
  // Makes its result from another map, by another move.
  std::function<MakeFn(NodeId from, const BlockedMove& move)> make;
};

struct Draft {
  Code::Kind kind = Code::Kind::kRun;
  std::vector<NodeId> reads{};
  NodeId write{};
  std::vector<NodeId> more_writes{};
  // Reads whose memory the result may take, best first. Only those of the result's own form and geometry.
  std::vector<NodeId> in_place{};
  // True if other reads of the same memory don't matter: every element is read just before it is written.
  bool elementwise = false;
  MakeFn make{};
  std::shared_ptr<const ConvDraft> conv{};  // null when it is none
  std::shared_ptr<const ProductDraft8> product8{};
  std::shared_ptr<const AddDraft8> add8{};
  std::shared_ptr<const MoveDraft> move{};
  size_t target_step = 0;                   // branch, jump
  NodeId condition{};                       // branch, decide, exit
  BlockId block{};                          // enter, decide; and on-skip work
  bool on_skip = false;                     // runs only when the block is skipped
  ExitId exit{};                            // exit; and work that is done only when that exit is taken
  bool shared_output = false;
};

// Packs weights; the largest are packed first.
struct Packing {
  int64_t elements = 0;
  std::function<void(ReadMemory&)> pack;
};

// The ends of a skippable block.
struct StreamEnds {
  BlockId block;
  NodeId input, output;
};

struct DraftGraph {
  Table<NodeId, Node> nodes;
  Table<DraftId, Draft> drafts;
  std::vector<DraftId> draft_of_step;      // first draft of a step, and of the end: where jumps to it land
  Table<BlockId, DraftId> draft_of_body;   // of a block, after its gate has decided
  std::vector<StreamEnds> skippable;       // in the order of blocks
  std::vector<Packing> packing;
  std::vector<TensorView> views;           // of instructions on dense tensors
  std::vector<std::shared_ptr<const void>> kept;  // constants that nodes lie in

  // The node whose memory this one is.
  NodeId origin(NodeId node) const {
    while (nodes[node].view_of) node = nodes[node].view_of;
    return node;
  }
};

// One instruction that does make(n) for every image of a batch; all of them are of the same kind.
InstructionPtr make_sequence(std::vector<InstructionPtr> steps);
InstructionPtr for_images(int images, const std::function<InstructionPtr(int)>& make);

}  // namespace rskip
