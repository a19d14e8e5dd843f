#include <array>
#include <iterator>

#include "program/operator.h"

namespace rskip {
namespace {

template <Attribute... kList>
inline constexpr std::array<Attribute, sizeof...(kList)> kAttributes = {kList...};

using enum Attribute;
constexpr Operator kOperators[] = {
#define RS_OPERATOR(constant, name, ...) {#name, kAttributes<__VA_ARGS__>, &operators::name},
#include "ops/operators.def"
#undef RS_OPERATOR
};

}  // namespace

const size_t kOperatorCount = std::size(kOperators);

const Operator& operator_of(Op op) { return kOperators[static_cast<size_t>(op)]; }

}  // namespace rskip
