// Buffers of values in the forms that kernels ask for, and the conversions between them.
#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "engine/aligned_buffer.h"
#include "plan/lowering.h"
#include "program/error.h"

namespace rskip {
namespace {

// Kinds of cached constants; part of WeightCache keys.
enum : int64_t { kRaw, kPaddedChannels, kBlockedConstant };

Place address(const AlignedBuffer& buffer) {
  return {kAbsoluteBase, static_cast<int64_t>(reinterpret_cast<uintptr_t>(buffer.data()))};
}

std::shared_ptr<AlignedBuffer> zeroed(size_t bytes) {
  auto buffer = std::make_shared<AlignedBuffer>();
  buffer->reserve(std::max<size_t>(bytes, 1));
  std::memset(buffer->data(), 0, bytes);
  return buffer;
}

}  // namespace

void PlanBuilder::require_data(int32_t value_id) const {
  if (value_id == kNone || constant(value_id).data != nullptr || value(value_id).bytes() == 0) return;
  throw EngineError(ErrorCode::kInternal, "constant " + std::to_string(constant(value_id).id) +
                                              " came without data, and nothing made of it is held");
}

NodeId PlanBuilder::add_node(int32_t value_id, Form form) {
  Node node;
  node.form = form;
  node.value = value_id;
  node.bytes = value(value_id).bytes();
  as_image(value(value_id), &node.image);
  nodes_.push_back(node);
  return static_cast<NodeId>(nodes_.size()) - 1;
}

NodeId PlanBuilder::add_fixed(int32_t value_id, Form form, Place place) {
  const NodeId id = add_node(value_id, form);
  nodes_[static_cast<size_t>(id)].arena = false;
  nodes_[static_cast<size_t>(id)].fixed = place;
  return id;
}

NodeId PlanBuilder::keep_constant(int32_t value_id, Form form, const WeightCache::Key& key,
                                  const std::function<void(float* to)>& fill, size_t bytes) {
  const auto buffer = context_.weights.get<AlignedBuffer>(key, [&] {
    require_data(value_id);
    auto fresh = zeroed(bytes);
    fill(reinterpret_cast<float*>(fresh->data()));
    return std::shared_ptr<const AlignedBuffer>(fresh);
  });
  plan_->kept.push_back(buffer);
  return add_fixed(value_id, form, address(*buffer));
}

NodeId PlanBuilder::constant_dense(int32_t value_id) {
  const ConstantData& data = constant(value_id);
  const size_t bytes = value(value_id).bytes();
  const auto fill = [&](float* to) {
    if (bytes > 0) std::memcpy(to, data.data, bytes);
  };
  return keep_constant(value_id, Form::kDense, {data.id, kRaw, static_cast<int64_t>(bytes)}, fill, bytes);
}

NodeId PlanBuilder::constant_channels(int32_t value_id, int channels) {
  const float* from = constant_floats(value_id);
  const bool spread = value(value_id).elements == 1;
  const auto fill = [&](float* to) {
    for (int c = 0; c < channels; ++c) to[c] = from[spread ? 0 : c];
  };
  return keep_constant(value_id, Form::kChannels, {constant(value_id).id, kPaddedChannels, channels}, fill,
                       static_cast<size_t>(whole_blocks(channels)) * sizeof(float));
}

NodeId PlanBuilder::constant_blocked(int32_t value_id) {
  Image image;
  as_image(value(value_id), &image);
  const ImageLayout layout = blocked_layout(image, {});
  const auto fill = [&](float* to) {
    const float* from = constant_floats(value_id);
    for (int n = 0; n < image.n; ++n, to += layout.image_floats()) {
      for (int c = 0; c < image.c; ++c) {
        for (int h = 0; h < image.h; ++h) {
          float* row = to + c / kLanes * layout.plane_stride + h * layout.row_stride + c % kLanes;
          for (int w = 0; w < image.w; ++w) row[w * kLanes] = *from++;
        }
      }
    }
  };
  const WeightCache::Key key = {constant(value_id).id, kBlockedConstant, image.n, image.c, image.h, image.w};
  return keep_constant(value_id, Form::kBlocked, key, fill, static_cast<size_t>(layout.bytes()));
}

NodeId PlanBuilder::home(int32_t value_id) {
  NodeId& node = home_[static_cast<size_t>(value_id)];
  if (node == kNone) node = constant_dense(value_id);  // what isn't a constant has been written by now
  return node;
}

bool PlanBuilder::blocked_at_home(int32_t value_id) const {
  const NodeId node = home_[static_cast<size_t>(value_id)];
  return node != kNone && nodes_[static_cast<size_t>(node)].form == Form::kBlocked;
}

NodeId PlanBuilder::request(int32_t value_id, Form form) {
  const NodeId at = home(value_id);
  if (nodes_[static_cast<size_t>(at)].form == form) return at;
  for (const Conversion& c : conversions_) {
    if (c.value == value_id && c.form == form) return c.node;
  }
  const size_t before = drafts_.size();
  const NodeId node = add_node(value_id, form);
  draft_conversion(at, node);
  conversions_.push_back({value_id, form, node, before});
  return node;
}

void PlanBuilder::widen(NodeId node, const Halo& halo) {
  Node& n = nodes_[static_cast<size_t>(node)];
  const Halo wide = widest(n.halo, halo);
  if (wide == n.halo) return;
  n.halo = wide;
  n.layer = layer_;
}

NodeId PlanBuilder::request_blocked(int32_t value_id, const Halo& halo) {
  // The blocked copy of a constant is made once, without a halo.
  if (is_empty(halo) && is_constant(value_id)) return constant_blocked(value_id);
  const NodeId node = request(value_id, Form::kBlocked);
  widen(node, halo);
  return node;
}

NodeId PlanBuilder::request_planar(int32_t value_id, const Halo& halo) {
  if (is_empty(halo)) return request(value_id, Form::kDense);
  const NodeId node = request(value_id, Form::kPlanar);
  widen(node, halo);
  return node;
}

NodeId PlanBuilder::request_channels(int32_t value_id, int channels, int images) {
  if (is_constant(value_id)) return constant_channels(value_id, channels);
  const NodeId dense = request(value_id, Form::kDense);
  const bool spread = value(value_id).elements == 1 && channels > 1;
  if (!spread && images == 1 && nodes_[static_cast<size_t>(dense)].arena) {
    nodes_[static_cast<size_t>(dense)].zero_tail = true;
    return dense;
  }
  const NodeId node = add_node(value_id, Form::kChannels);
  const int64_t padded = whole_blocks(channels) * static_cast<int64_t>(sizeof(float));
  nodes_[static_cast<size_t>(node)].bytes = static_cast<size_t>(padded * images);
  add_draft({.reads = {dense}, .write = node, .make = [=](const PlanBuilder& b) {
               return for_images(images, [&](int n) {
                 const Place to = b.place(node).plus(n * padded);
                 if (spread) return make_spread(b.place(dense), to, channels);
                 return make_pad_channels(b.place(dense).plus(n * channels * static_cast<int64_t>(sizeof(float))), to,
                                          channels);
               });
             }});
  return node;
}

NodeId PlanBuilder::target(int32_t value_id, Form form) {
  NodeId& at = home_[static_cast<size_t>(value_id)];
  // What was made of an earlier content.
  std::erase_if(conversions_, [&](const Conversion& c) { return c.value == value_id; });
  // A value that several steps write has one form for all of them.
  const bool joined = writers_[static_cast<size_t>(value_id)] > 1;
  if (at == kNone) at = add_node(value_id, joined ? Form::kDense : form);
  return nodes_[static_cast<size_t>(at)].form == form ? at : add_node(value_id, form);
}

void PlanBuilder::add_compute(Draft draft) {
  const NodeId written = draft.write;
  add_draft(std::move(draft));
  const NodeId at = home_[static_cast<size_t>(nodes_[static_cast<size_t>(written)].value)];
  if (written != at) draft_conversion(written, at);
}

void PlanBuilder::draft_conversion(NodeId from, NodeId to, int32_t on_skip_of) {
  const Node source = nodes_[static_cast<size_t>(from)];
  const Form a = source.form, b = nodes_[static_cast<size_t>(to)].form;
  MakeFn make;
  if (a == b && a == Form::kDense) {
    make = [=, bytes = source.bytes](const PlanBuilder& p) { return make_copy(p.place(from), p.place(to), bytes); };
  } else {
    make = [=, images = source.image.n](const PlanBuilder& p) {
      return for_images(images, [&](int n) -> InstructionPtr {
        if (b == Form::kBlocked) {
          if (a == Form::kBlocked) return make_copy_blocked(p.blocked(from, n), p.blocked(to, n));
          return make_planar_to_blocked(p.table(), p.planar(from, n), p.blocked(to, n));
        }
        if (a == Form::kBlocked) return make_blocked_to_planar(p.table(), p.blocked(from, n), p.planar(to, n));
        return make_copy_planar(p.planar(from, n), p.planar(to, n));
      });
    };
  }
  // A block that is updated in place has nothing to copy when it is skipped.
  if (on_skip_of != kNone) {
    make = [=, copy = std::move(make)](const PlanBuilder& p) { return p.root(from) == p.root(to) ? nullptr : copy(p); };
  }
  add_draft(
      {.reads = {from}, .write = to, .make = std::move(make), .block = on_skip_of, .on_skip = on_skip_of != kNone});
}

void PlanBuilder::add_draft(Draft draft) {
  draft.shared_output = lowering_shared_outputs_;
  drafts_.push_back(std::move(draft));
}

void PlanBuilder::add_edge(int32_t target_step) { edges_.emplace(target_step, drafts_.size()); }

// A conversion made after a jump that may avoid it isn't there for what follows the jump's target.
void PlanBuilder::drop_conversions(int32_t step) {
  const auto [begin, end] = edges_.equal_range(step);
  for (auto edge = begin; edge != end; ++edge) {
    std::erase_if(conversions_, [&](const Conversion& c) { return c.draft >= edge->second; });
  }
}

Place PlanBuilder::place(NodeId id) const {
  const Node& node = nodes_[static_cast<size_t>(id)];
  return node.arena ? classes_[static_cast<size_t>(root(id))].place : node.fixed;
}

ImageLayout PlanBuilder::layout(NodeId id) const {
  const Node& node = nodes_[static_cast<size_t>(id)];
  const Halo halo = node.arena ? classes_[static_cast<size_t>(root(id))].halo : Halo{};
  switch (node.form) {
    case Form::kBlocked: return blocked_layout(node.image, halo);
    case Form::kPlanar: return planar_layout(node.image, halo);
    default: return dense_layout(node.image);
  }
}

BlockedOperand PlanBuilder::blocked(NodeId id, int n) const {
  const ImageLayout l = layout(id);
  const int64_t floats = l.image_floats() * n + l.origin;
  return {place(id).plus(floats * static_cast<int64_t>(sizeof(float))), blocked_view(l)};
}

PlanarOperand PlanBuilder::planar(NodeId id, int n) const {
  const ImageLayout l = layout(id);
  const int64_t floats = l.image_floats() * n + l.origin;
  return {place(id).plus(floats * static_cast<int64_t>(sizeof(float))), planar_view(l)};
}

}  // namespace rskip
