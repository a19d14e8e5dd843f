#include "plan/lowering.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <string>

#include "kernels/aligned_buffer.h"
#include "program/error.h"

namespace rskip {
namespace {

Place address(const AlignedBuffer& buffer) { return Place::at_address(buffer.data()); }

}  // namespace

bool ConstantReader::in_file(ValueId id) const {
  const ConstantData& from = data(id);
  if (from.data != nullptr || program_->value(id).bytes() == 0) return false;
  if (from.file >= 0) return true;
  throw EngineError(ErrorCode::kInternal,
                    "constant " + std::to_string(from.id) + ": it has no data, and nothing made from it is held");
}

const void* ConstantReader::find(ValueId id) const {
  for (const auto& [fetched, bytes] : fetched_) {
    if (fetched == id) return bytes;
  }
  return data(id).data;
}

void ConstantReader::fetch(std::span<const ValueId> ids, ReadMemory& memory) {
  constexpr size_t kAlignment = 64;
  fetched_.clear();
  std::vector<ValueId> wanted;
  std::copy_if(ids.begin(), ids.end(), std::back_inserter(wanted), [&](ValueId id) { return id && in_file(id); });
  const auto room = [&](ValueId id) { return (program_->value(id).bytes() + kAlignment - 1) / kAlignment * kAlignment; };
  size_t bytes = 0;
  for (ValueId id : wanted) bytes += room(id);
  std::byte* to = memory.take(bytes);
  for (ValueId id : wanted) {
    copy(id, to);
    fetched_.emplace_back(id, to);
    to += room(id);
  }
}

void ConstantReader::copy(ValueId id, void* to) const {
  const size_t bytes = program_->value(id).bytes();
  if (in_file(id)) {
    read_file(data(id).file, data(id).offset, to, bytes);
  } else if (bytes > 0) {
    std::memcpy(to, data(id).data, bytes);
  }
}

std::shared_ptr<const FileTable> ConstantReader::table(ValueId id) const {
  const Value& value = program_->value(id);
  const int64_t rows = value.shape.empty() ? 0 : value.shape[0];
  if (!in_file(id) || rows == 0) return nullptr;
  return std::make_shared<const FileTable>(data(id).file, data(id).offset, rows, value.bytes() / static_cast<size_t>(rows));
}

Lowering::Lowering(const Program& program, std::span<const ConstantData> constants, WeightCache& weights,
                   Precision precision, Isa isa)
    : precision(precision),
      isa(isa),
      program_(program),
      constants_(program, constants),
      weights_(weights),
      home_(program.values.size()),
      writers_(program.values.size()),
      written_by_skip_(program.values.size()) {
  for (const Step& step : program.steps) {
    for (ValueId id : step.outputs) ++writers_[id];
  }
  for (const Block& block : program.blocks) {
    if (block.skippable) written_by_skip_[block.output] = true;
  }
  for (size_t i = 0; i < program.inputs.size(); ++i) {
    const ValueId id = program.inputs[i].value;
    home_[id] = add_fixed(id, Form::kDense, Place::at_port(i));
  }
}

bool Lowering::as_images(const Step& step, Image* x, Image* y, DType dtype) const {
  return as_image(value(step.inputs[0]), x, dtype) && as_image(value(step.outputs[0]), y, dtype);
}

NodeId Lowering::add_node(ValueId id, Form form) {
  Node node;
  node.form = form;
  node.value = id;
  node.bytes = value(id).bytes();
  if (value(id).dtype == DType::kUint8) node.element = sizeof(uint8_t);
  as_image(value(id), &node.image, node.element == sizeof(uint8_t) ? DType::kUint8 : DType::kFloat32);
  return graph_.nodes.add(node);
}

NodeId Lowering::add_fixed(ValueId id, Form form, Place place) {
  const NodeId node = add_node(id, form);
  graph_.nodes[node].arena = false;
  graph_.nodes[node].fixed = place;
  return node;
}

NodeId Lowering::keep_constant(ValueId id, Form form, const WeightCache::Key& key, size_t bytes,
                               const std::function<void(const float* from, float* to)>& fill) {
  const auto buffer = weights_.get<AlignedBuffer>(key, [&] {
    auto fresh = std::make_shared<AlignedBuffer>();
    fresh->reserve(std::max<size_t>(bytes, 1));
    if (fill) {
      std::memset(fresh->data(), 0, bytes);
      ReadMemory memory;
      ConstantReader reader = constants_;
      reader.fetch({&id, 1}, memory);
      fill(reader.of<float>(id), reinterpret_cast<float*>(fresh->data()));
    } else {
      constants_.copy(id, fresh->data());
    }
    return std::shared_ptr<const AlignedBuffer>(fresh);
  });
  graph_.kept.push_back(buffer);
  return add_fixed(id, form, address(*buffer));
}

bool Lowering::ask(const WeightCache::Key& key, ValueId constant, const std::function<bool(const ConstantReader&)>& test) {
  const auto answer = weights_.get<bool>(key, [&] {
    ReadMemory memory;
    ConstantReader reader = constants_;
    reader.fetch({&constant, 1}, memory);
    return std::make_shared<const bool>(test(reader));
  });
  graph_.kept.push_back(answer);
  return *answer;
}

NodeId Lowering::constant_dense(ValueId id) {
  const size_t bytes = value(id).bytes();
  return keep_constant(id, Form::kDense, {constant_key(id), kRaw, static_cast<int64_t>(bytes)}, bytes, {});
}

std::shared_ptr<const FileTable> Lowering::table(ValueId id) {
  constexpr size_t kLarge = size_t{1} << 20;
  const size_t bytes = is_constant(id) ? value(id).bytes() : 0;
  // Where all of it is held, there is nothing to read.
  if (bytes < kLarge || weights_.holds({constant_key(id), kRaw, static_cast<int64_t>(bytes)})) return nullptr;
  return weights_.get<FileTable>({constant_key(id), kRows}, [&] { return constants_.table(id); });
}

NodeId Lowering::constant_channels(ValueId id, int channels) {
  const bool spread = value(id).elements == 1;
  const auto fill = [&](const float* from, float* to) {
    for (int c = 0; c < channels; ++c) to[c] = from[spread ? 0 : c];
  };
  return keep_constant(id, Form::kChannels, {constant_key(id), kPaddedChannels, channels},
                       static_cast<size_t>(whole_blocks(channels)) * sizeof(float), fill);
}

NodeId Lowering::constant_blocked(ValueId id) {
  Image image;
  as_image(value(id), &image);
  const ImageLayout layout = blocked_layout(image, {});
  const auto fill = [&](const float* from, float* to) {
    for (int n = 0; n < image.n; ++n, to += layout.image_elements()) {
      for (int c = 0; c < image.c; ++c) {
        for (int h = 0; h < image.h; ++h) {
          float* row = to + c / kLanes * layout.plane_stride + h * layout.row_stride + c % kLanes;
          for (int w = 0; w < image.w; ++w) row[w * kLanes] = *from++;
        }
      }
    }
  };
  const WeightCache::Key key = {constant_key(id), kBlockedConstant, image.n, image.c, image.h, image.w};
  return keep_constant(id, Form::kBlocked, key, static_cast<size_t>(layout.bytes()), fill);
}

NodeId Lowering::home(ValueId id) {
  if (!home_[id]) home_[id] = constant_dense(id);  // what isn't a constant has been written by now
  return home_[id];
}

bool Lowering::blocked_at_home(ValueId id) const {
  return home_[id] && graph_.nodes[home_[id]].form == Form::kBlocked;
}

NodeId Lowering::request(ValueId id, Form form) {
  const NodeId at = home(id);
  if (graph_.nodes[at].form == form) return at;
  if (const auto made = conversions_.find({id, form}); made != conversions_.end()) return made->second.node;
  const DraftId draft = graph_.drafts.next();
  const NodeId node = add_node(id, form);
  convert(at, node);
  conversions_[{id, form}] = {node, draft};
  return node;
}

void Lowering::widen(NodeId node, const Halo& halo) {
  Node& n = graph_.nodes[node];
  const Halo wide = widest(n.halo, halo);
  if (wide == n.halo) return;
  n.halo = wide;
  n.layer = layer_;
}

NodeId Lowering::request_blocked(ValueId id, const Halo& halo) {
  // The blocked copy of a constant is made once, without a halo.
  if (is_empty(halo) && is_constant(id)) return constant_blocked(id);
  const NodeId node = request(id, Form::kBlocked);
  widen(node, halo);
  return node;
}

NodeId Lowering::request_planar(ValueId id, const Halo& halo) {
  if (is_empty(halo)) return request(id, Form::kDense);
  const NodeId node = request(id, Form::kPlanar);
  widen(node, halo);
  return node;
}

NodeId Lowering::request_image8(ValueId id, Form form, const Halo& halo, uint8_t zero) {
  if (is_empty(halo)) return request(id, form == Form::kPlanar ? Form::kDense : form);
  NodeId node = request(id, form);
  // One buffer has one halo: who reads it as of another zero point needs a copy.
  if (!is_empty(graph_.nodes[node].halo) && graph_.nodes[node].halo_byte != zero) {
    const NodeId copy = add_node(id, form);
    convert(node, copy);
    node = copy;
  }
  graph_.nodes[node].halo_byte = zero;
  widen(node, halo);
  return node;
}

NodeId Lowering::request_channels(ValueId id, int channels, int images) {
  if (is_constant(id)) return constant_channels(id, channels);
  const NodeId dense = request(id, Form::kDense);
  const bool spread = value(id).elements == 1 && channels > 1;
  if (!spread && images == 1 && graph_.nodes[dense].arena) {
    graph_.nodes[dense].zero_tail = true;
    return dense;
  }
  const NodeId node = add_node(id, Form::kChannels);
  const int64_t item = channels * static_cast<int64_t>(sizeof(float));
  const int64_t padded = whole_blocks(channels) * static_cast<int64_t>(sizeof(float));
  graph_.nodes[node].bytes = static_cast<size_t>(padded * images);
  add({.reads = {dense}, .write = node, .make = [=](const Emitter& e) {
         return for_images(images, [&](int n) {
           const Place to = e.place(node).plus(n * padded);
           if (spread) return make_spread(e.place(dense), to, channels);
           return make_pad_channels(e.place(dense).plus(n * item), to, channels);
         });
       }});
  return node;
}

NodeId Lowering::target(ValueId id, Form form) {
  // What was made of an earlier content.
  const auto begin = conversions_.lower_bound({id, Form::kDense});
  auto end = begin;
  while (end != conversions_.end() && end->first.first == id) ++end;
  conversions_.erase(begin, end);
  // A value that several steps write has one form for all of them.
  if (!home_[id]) home_[id] = add_node(id, writers(id) > 1 ? Form::kDense : form);
  return graph_.nodes[home_[id]].form == form ? home_[id] : add_node(id, form);
}

void Lowering::compute(Draft draft) {
  const NodeId written = draft.write;
  add(std::move(draft));
  const NodeId at = home_[graph_.nodes[written].value];
  if (written != at) convert(written, at);
}

void Lowering::view(ValueId id, NodeId node) {
  const Node source = graph_.nodes[node];
  home_[id] = source.arena ? add_node(id, source.form) : add_fixed(id, source.form, source.fixed);
  if (source.arena) graph_.nodes[home_[id]].view_of = node;
  add({.reads = {node}, .write = home_[id]});
}

MakeFn Lowering::make_activation(NodeId from, NodeId to, const Activation& act) const {
  const Node node = graph_.nodes[from];
  if (node.form == Form::kBlocked) {
    return [=](const Emitter& e) {
      return for_images(node.image.n,
                        [&](int n) { return make_unary(e.table(), e.blocked(from, n), e.blocked(to, n), act); });
    };
  }
  return [=, n = value(node.value).elements](const Emitter& e) {
    return make_unary_span(e.table(), e.place(from), e.place(to), n, act);
  };
}

void Lowering::convert(NodeId from, NodeId to, BlockId on_skip_of) {
  const Node source = graph_.nodes[from];
  const Form a = source.form, b = graph_.nodes[to].form;
  MakeFn make;
  if (a == b && a == Form::kDense) {
    make = [=, bytes = source.bytes](const Emitter& e) { return make_copy(e.place(from), e.place(to), bytes); };
  } else if (source.element == sizeof(uint8_t)) {
    make = [=, images = source.image.n](const Emitter& e) {
      return for_images(images, [&](int n) -> InstructionPtr {
        if (b == Form::kBlocked) {
          if (a == Form::kBlocked) return make_copy_blocked(e.blocked8(from, n), e.blocked8(to, n));
          return make_planar_to_blocked8(e.table(), e.planar8(from, n), e.blocked8(to, n));
        }
        if (a == Form::kBlocked) return make_blocked_to_planar8(e.table(), e.blocked8(from, n), e.planar8(to, n));
        return make_copy_planar(e.planar8(from, n), e.planar8(to, n));
      });
    };
  } else {
    make = [=, images = source.image.n](const Emitter& e) {
      return for_images(images, [&](int n) -> InstructionPtr {
        if (b == Form::kBlocked) {
          if (a == Form::kBlocked) return make_copy_blocked(e.blocked(from, n), e.blocked(to, n));
          return make_planar_to_blocked(e.table(), e.planar(from, n), e.blocked(to, n));
        }
        if (a == Form::kBlocked) return make_blocked_to_planar(e.table(), e.blocked(from, n), e.planar(to, n));
        return make_copy_planar(e.planar(from, n), e.planar(to, n));
      });
    };
  }
  // A block that is updated in place has nothing to copy when it is skipped.
  if (on_skip_of) {
    make = [=, copy = std::move(make)](const Emitter& e) { return e.same_memory(from, to) ? nullptr : copy(e); };
  }
  add({.reads = {from},
       .write = to,
       .make = std::move(make),
       .block = on_skip_of,
       .on_skip = static_cast<bool>(on_skip_of)});
}

void Lowering::add(Draft draft) {
  draft.shared_output = shared_outputs_;
  if (taken_exit_) draft.exit = taken_exit_;
  graph_.drafts.add(std::move(draft));
}

}  // namespace rskip
