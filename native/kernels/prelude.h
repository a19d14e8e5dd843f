// Every ordinary header that the -inl.h files use: included here first, so that none is first seen inside a
// target region.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>

#include "kernels/convolution/conv_rules.h"
#include "kernels/convolution/conv_winograd.h"
#include "kernels/table.h"
#include "kernels/types.h"
#include "simd/target.h"
