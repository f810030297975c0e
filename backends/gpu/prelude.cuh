// What generated kernels are written in: types, conversions and arithmetic with the meaning of the kernel IR.
// Every function that a GPU has an instruction of its own for has two bodies: that one, and plain C++ for the
// emulated device, where emulator.h comes before this file and defines GT_EMULATED.

#ifndef GT_EMULATED
#define GT_FUNCTION static __device__ __forceinline__
#define GT_AT(pointer, index) (pointer)[index]
#define GT_TO(pointer, index) (pointer)[index]
#define GT_SHARE(pointer, index) ((pointer) + (index))
#define GT_IN(array, size, index) (array)[index]
#define GT_GOT(array, size, index) (array)[index]
#define GT_PUT(array, size, index) (array)[index]
#define GT_AT_MANY(pointer, index, count) ((pointer) + (index))
#define GT_TO_MANY(pointer, index, count) ((pointer) + (index))
#define GT_IN_MANY(array, size, index, count) ((array) + (index))
#define GT_GOT_MANY(array, size, index, count) ((array) + (index))
#define GT_PUT_MANY(array, size, index, count) ((array) + (index))
#define GT_SHARED(type, name, size, align) __shared__ __align__(align) type name[size]
#define GT_DYNAMIC(type, name, offset) \
  extern __shared__ __align__(1024) gt_u8 gt_dynamic[]; \
  type* name = (type*)(gt_dynamic + offset)
#define GT_SITE 0
#define GT_LINE 0
#endif

typedef signed char gt_i8;
typedef unsigned char gt_u8;
typedef short gt_i16;
typedef unsigned short gt_u16;
typedef int gt_i32;
typedef unsigned int gt_u32;
typedef long long gt_i64;
typedef unsigned long long gt_u64;
struct gt_f16 { gt_u16 bits; };
struct gt_bf16 { gt_u16 bits; };

// ---- threads

GT_FUNCTION gt_i64 gt_thread() { return (gt_i64)blockIdx.x * blockDim.x + threadIdx.x; }
GT_FUNCTION gt_i64 gt_threads() { return (gt_i64)gridDim.x * blockDim.x; }

// ---- bits

template <class To, class From> GT_FUNCTION To gt_bitcast(From x) {
  static_assert(sizeof(To) == sizeof(From), "a bitcast keeps the size");
  To y;
  memcpy(&y, &x, sizeof y);
  return y;
}
GT_FUNCTION float gt_float_bits(gt_u32 bits) { return gt_bitcast<float>(bits); }
GT_FUNCTION double gt_double_bits(gt_u64 bits) { return gt_bitcast<double>(bits); }
GT_FUNCTION bool gt_isnan(float x) { return x != x; }
GT_FUNCTION bool gt_isnan(double x) { return x != x; }

// ---- integers: arithmetic wraps, x / 0 = x % 0 = 0, shifts by too much give 0 or the sign

template <class T> struct gt_unsigned;
template <> struct gt_unsigned<gt_i8> { typedef gt_u8 type; };
template <> struct gt_unsigned<gt_u8> { typedef gt_u8 type; };
template <> struct gt_unsigned<gt_i16> { typedef gt_u16 type; };
template <> struct gt_unsigned<gt_u16> { typedef gt_u16 type; };
template <> struct gt_unsigned<gt_i32> { typedef gt_u32 type; };
template <> struct gt_unsigned<gt_u32> { typedef gt_u32 type; };
template <> struct gt_unsigned<gt_i64> { typedef gt_u64 type; };
template <> struct gt_unsigned<gt_u64> { typedef gt_u64 type; };
#define GT_U(x) ((typename gt_unsigned<T>::type)(x))
template <class T> GT_FUNCTION constexpr bool gt_signed() { return (T)-1 < (T)0; }

template <class T> GT_FUNCTION T gt_add(T a, T b) { return (T)GT_U(GT_U(a) + (gt_u64)GT_U(b)); }
template <class T> GT_FUNCTION T gt_sub(T a, T b) { return (T)GT_U(GT_U(a) - (gt_u64)GT_U(b)); }
template <class T> GT_FUNCTION T gt_mul(T a, T b) { return (T)GT_U(GT_U(a) * (gt_u64)GT_U(b)); }
template <class T> GT_FUNCTION T gt_neg(T a) { return gt_sub((T)0, a); }
template <class T> GT_FUNCTION T gt_not(T a) { return (T)~a; }
template <class T> GT_FUNCTION T gt_and(T a, T b) { return (T)(a & b); }
template <class T> GT_FUNCTION T gt_or(T a, T b) { return (T)(a | b); }
template <class T> GT_FUNCTION T gt_xor(T a, T b) { return (T)(a ^ b); }
template <class T> GT_FUNCTION T gt_div(T a, T b) {
  if (b == 0) return 0;
  return gt_signed<T>() && b == (T)-1 ? gt_neg(a) : (T)(a / b);
}
template <class T> GT_FUNCTION T gt_div_u(T a, T b) { return b == 0 ? (T)0 : (T)(GT_U(a) / GT_U(b)); }
template <class T> GT_FUNCTION T gt_rem_u(T a, T b) { return b == 0 ? (T)0 : (T)(GT_U(a) % GT_U(b)); }
template <class T> GT_FUNCTION bool gt_lt_u(T a, T b) { return GT_U(a) < GT_U(b); }
template <class T> GT_FUNCTION T gt_shl(T a, T b) {
  return GT_U(b) < 8 * sizeof(T) ? (T)GT_U((gt_u64)GT_U(a) << GT_U(b)) : (T)0;
}
template <class T> GT_FUNCTION T gt_shr_u(T a, T b) {
  return GT_U(b) < 8 * sizeof(T) ? (T)GT_U(GT_U(a) >> GT_U(b)) : (T)0;
}
template <class T> GT_FUNCTION T gt_shr(T a, T b) {
  if (!gt_signed<T>()) return gt_shr_u(a, b);
  return (T)(a >> (GT_U(b) < 8 * sizeof(T) ? GT_U(b) : 8 * sizeof(T) - 1));
}
GT_FUNCTION gt_u32 gt_mulhi_u(gt_u32 a, gt_u32 b) { return (gt_u32)((gt_u64)a * b >> 32); }
GT_FUNCTION gt_i32 gt_mulhi_u(gt_i32 a, gt_i32 b) { return (gt_i32)gt_mulhi_u((gt_u32)a, (gt_u32)b); }
GT_FUNCTION gt_u64 gt_mulhi_u(gt_u64 a, gt_u64 b) {
#ifdef GT_EMULATED
  return (gt_u64)((unsigned __int128)a * b >> 64);
#else
  return __umul64hi(a, b);
#endif
}
GT_FUNCTION gt_i64 gt_mulhi_u(gt_i64 a, gt_i64 b) { return (gt_i64)gt_mulhi_u((gt_u64)a, (gt_u64)b); }

// ---- both kinds of numbers: min and max propagate NaN

template <class T> struct gt_is_float { static const bool value = false; };
template <> struct gt_is_float<float> { static const bool value = true; };
template <> struct gt_is_float<double> { static const bool value = true; };
template <class T> GT_FUNCTION T gt_min(T a, T b) { return a != a || a < b ? a : b; }
template <class T> GT_FUNCTION T gt_max(T a, T b) { return a != a || a > b ? a : b; }
template <class T> GT_FUNCTION T gt_minnum(T a, T b) { return a != a || b < a ? b : a; }
template <class T> GT_FUNCTION T gt_maxnum(T a, T b) { return a != a || b > a ? b : a; }
#ifndef GT_EMULATED
#if __CUDA_ARCH__ >= 800
#define GT_NAN_EXTREME(name, instruction) \
  GT_FUNCTION float name(float a, float b) { \
    float y; \
    asm(instruction ".NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b)); \
    return y; \
  }
GT_NAN_EXTREME(gt_min, "min")
GT_NAN_EXTREME(gt_max, "max")
#endif
#endif
GT_FUNCTION float gt_minnum(float a, float b) { return fminf(a, b); }
GT_FUNCTION float gt_maxnum(float a, float b) { return fmaxf(a, b); }
GT_FUNCTION gt_i8 gt_abs(gt_i8 x) { return x < 0 ? gt_neg(x) : x; }
GT_FUNCTION gt_i16 gt_abs(gt_i16 x) { return x < 0 ? gt_neg(x) : x; }
GT_FUNCTION gt_i32 gt_abs(gt_i32 x) { return x < 0 ? gt_neg(x) : x; }
GT_FUNCTION gt_i64 gt_abs(gt_i64 x) { return x < 0 ? gt_neg(x) : x; }
template <class T> GT_FUNCTION T gt_rem(T a, T b) {
  if (b == 0 || (gt_signed<T>() && b == (T)-1)) return 0;
  return (T)(a % b);
}

// ---- floats

GT_FUNCTION float gt_abs(float x) { return fabsf(x); }
GT_FUNCTION double gt_abs(double x) { return fabs(x); }
GT_FUNCTION float gt_sqrt(float x) { return sqrtf(x); }
GT_FUNCTION double gt_sqrt(double x) { return sqrt(x); }
GT_FUNCTION float gt_rsqrt(float x) { return 1.0f / sqrtf(x); }
GT_FUNCTION double gt_rsqrt(double x) { return 1.0 / sqrt(x); }
GT_FUNCTION float gt_floor(float x) { return floorf(x); }
GT_FUNCTION double gt_floor(double x) { return floor(x); }
GT_FUNCTION float gt_ceil(float x) { return ceilf(x); }
GT_FUNCTION double gt_ceil(double x) { return ceil(x); }
GT_FUNCTION float gt_trunc(float x) { return truncf(x); }
GT_FUNCTION double gt_trunc(double x) { return trunc(x); }
GT_FUNCTION float gt_round(float x) { return rintf(x); }
GT_FUNCTION double gt_round(double x) { return rint(x); }
GT_FUNCTION float gt_copysign(float x, float y) { return copysignf(x, y); }
GT_FUNCTION double gt_copysign(double x, double y) { return copysign(x, y); }
GT_FUNCTION float gt_rem(float a, float b) { return fmodf(a, b); }
GT_FUNCTION double gt_rem(double a, double b) { return fmod(a, b); }
GT_FUNCTION float gt_fmod(float a, float b) { return fmodf(a, b); }
GT_FUNCTION double gt_fmod(double a, double b) { return fmod(a, b); }
GT_FUNCTION float gt_fma(float a, float b, float c) { return fmaf(a, b, c); }
GT_FUNCTION double gt_fma(double a, double b, double c) { return fma(a, b, c); }

// Operations that never fuse.
#ifdef GT_EMULATED
#define GT_ROUNDED(name, sign, single, twice) \
  GT_FUNCTION float name(float a, float b) { return a sign b; } \
  GT_FUNCTION double name(double a, double b) { return a sign b; }
#else
#define GT_ROUNDED(name, sign, single, twice) \
  GT_FUNCTION float name(float a, float b) { return single(a, b); } \
  GT_FUNCTION double name(double a, double b) { return twice(a, b); }
#endif
GT_ROUNDED(gt_add_rn, +, __fadd_rn, __dadd_rn)
GT_ROUNDED(gt_sub_rn, -, __fsub_rn, __dsub_rn)
GT_ROUNDED(gt_mul_rn, *, __fmul_rn, __dmul_rn)
GT_ROUNDED(gt_div_rn, /, __fdiv_rn, __ddiv_rn)

// Functions of f32 that are made of a GPU's approximations. Beyond 2^126 reciprocals are 0, below 2^-126 infinite.
GT_FUNCTION float gt_near_exp2(float x) {  // within 2 ULP; 0 where that is denormal
#ifdef GT_EMULATED
  return x < -126.0f ? 0.0f : exp2f(x);
#else
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#endif
}
GT_FUNCTION float gt_near_reciprocal(float x) {  // within 1 ULP
#ifdef GT_EMULATED
  const float a = fabsf(x);
  return a < 0x1p-126f ? copysignf(INFINITY, x) : a > 0x1p126f ? copysignf(0.0f, x) : 1.0f / x;
#else
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#endif
}
GT_FUNCTION float gt_half_exp(float x) {  // e^x / 2 = 2^(n - 1) 2^f for a whole n from -125 to 128; far out f has the rest
  const float shifted = gt_fma(fminf(fmaxf(x, -86.5f), 88.5f), 0x1.715476p+0f, 0x1.8p+23f + 126.0f);
  const float n = shifted - (0x1.8p+23f + 126.0f);
  const float f = gt_fma(x, 0x1.4ae0cp-26f, gt_fma(x, 0x1.715476p+0f, -n));
  return gt_near_exp2(f) * gt_float_bits(gt_bitcast<gt_u32>(shifted) << 23);
}
GT_FUNCTION float gt_exp_negative(float x) { return expf(x); }
GT_FUNCTION float gt_normal_cdf(float x) {
  return gt_fma(erff(x * 0x1.6a09e6p-1f), 0.5f, 0.5f);
}
GT_FUNCTION float gt_sigmoid(float x) {  // 1/(1 + z), or z/(1 + z) for negative x; a Newton step makes up for roundings
  const float z = expf(-fabsf(x)), d = gt_add_rn(z, 1.0f), lost = gt_sub_rn(z, gt_sub_rn(d, 1.0f));
  const float near = gt_near_reciprocal(d);
  const float inverse = gt_fma(gt_fma(-lost, near, gt_fma(-d, near, 1.0f)), near, near);
  return x < 0.0f ? z * inverse : inverse;
}

// a / b for a b that many a are divided by: one of them takes 6 instructions. To nearest for most a and to the next
// number for some; for a below 2^-102, where what is left of it is lost, within 2 ULP.
GT_FUNCTION float gt_quotient(float a, float b) {
  const float size = fabsf(b), scale = size > 0x1p100f ? 0x1p-30f : size < 0x1p-100f ? 0x1p60f : 1.0f;
  const float divisor = gt_mul_rn(b, scale), near = gt_near_reciprocal(divisor);
  const float inverse = gt_fma(gt_fma(-divisor, near, 1.0f), near, near);
  const float safe = inverse == inverse ? inverse : near;
  const float dividend = gt_mul_rn(a, scale), q = gt_mul_rn(dividend, safe);
  const float y = gt_fma(gt_fma(-divisor, q, dividend), safe, q);
  return fabsf(y) > 0.0f ? y : q;  // zeros, infinities and NaN are right before
}
template <class T> GT_FUNCTION T gt_quotient(T a, T b) { return a / b; }

// ---- conversions: wide integers saturate, narrow ones are the low bits of a wide one; NaN becomes 0; bool is != 0

GT_FUNCTION float gt_widen(gt_bf16 x) { return gt_float_bits((gt_u32)x.bits << 16); }
GT_FUNCTION gt_bf16 gt_narrow_bf16(float x) {  // to nearest even
#if defined(GT_EMULATED) || __CUDA_ARCH__ < 800
  const gt_u32 bits = gt_bitcast<gt_u32>(x), high = bits >> 16;
  if (x != x) return gt_bf16{(gt_u16)(high | 0x40)};
  return gt_bf16{(gt_u16)((bits + 0x7fff + (high & 1)) >> 16)};
#else
  gt_bf16 y;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
#endif
}
#ifdef GT_EMULATED
GT_FUNCTION float gt_widen(gt_f16 x) { return (float)gt_bitcast<_Float16>(x.bits); }
GT_FUNCTION gt_f16 gt_narrow_f16(float x) { return gt_f16{gt_bitcast<gt_u16>((_Float16)x)}; }
GT_FUNCTION gt_f16 gt_narrow_f16(double x) { return gt_f16{gt_bitcast<gt_u16>((_Float16)x)}; }
#else
GT_FUNCTION float gt_widen(gt_f16 x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
}
GT_FUNCTION gt_f16 gt_narrow_f16(float x) {
  gt_f16 y;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
}
GT_FUNCTION gt_f16 gt_narrow_f16(double x) {
  gt_f16 y;
  asm("cvt.rn.f16.f64 %0, %1;" : "=h"(y.bits) : "d"(x));
  return y;
}
#endif

template <class T> struct gt_range;
#define GT_RANGE(T, low, high) \
  template <> struct gt_range<T> { GT_RANGE_FUNCTION T least() { return low; } GT_RANGE_FUNCTION T most() { return high; } };
#ifdef GT_EMULATED
#define GT_RANGE_FUNCTION static inline
#else
#define GT_RANGE_FUNCTION static __device__ __forceinline__
#endif
GT_RANGE(gt_i8, -128, 127)
GT_RANGE(gt_u8, 0, 255)
GT_RANGE(gt_i16, -32768, 32767)
GT_RANGE(gt_u16, 0, 65535)
GT_RANGE(gt_i32, -2147483647 - 1, 2147483647)
GT_RANGE(gt_u32, 0u, 4294967295u)
GT_RANGE(gt_i64, -9223372036854775807ll - 1, 9223372036854775807ll)
GT_RANGE(gt_u64, 0ull, 18446744073709551615ull)

template <class To, class From, bool saturates> struct gt_conversion {
  GT_RANGE_FUNCTION To of(From x) { return (To)x; }
};
template <class To, class From> struct gt_conversion<To, From, true> {
  GT_RANGE_FUNCTION To of(From x) {
    if (x != x) return 0;
    if (x <= (From)gt_range<To>::least()) return gt_range<To>::least();
    if (x >= (From)gt_range<To>::most()) return gt_range<To>::most();
    return (To)x;
  }
};
template <class From> struct gt_conversion<bool, From, true> {
  GT_RANGE_FUNCTION bool of(From x) { return x != 0; }
};
template <class From> struct gt_conversion<bool, From, false> {
  GT_RANGE_FUNCTION bool of(From x) { return x != 0; }
};
template <class From> struct gt_conversion<gt_f16, From, false> {
  GT_RANGE_FUNCTION gt_f16 of(From x) { return gt_narrow_f16((float)x); }
};
template <class From> struct gt_conversion<gt_f16, From, true> {
  GT_RANGE_FUNCTION gt_f16 of(From x) { return gt_narrow_f16(x); }
};
template <class From> struct gt_conversion<gt_bf16, From, false> {
  GT_RANGE_FUNCTION gt_bf16 of(From x) { return gt_narrow_bf16((float)x); }
};
template <class From> struct gt_conversion<gt_bf16, From, true> {
  GT_RANGE_FUNCTION gt_bf16 of(From x) { return gt_narrow_bf16((float)x); }
};
template <class To, class From> struct gt_converts {
  static const bool saturates = gt_is_float<From>::value && !gt_is_float<To>::value;
};
template <class To, class From> GT_FUNCTION To gt_cast(From x) {
  return gt_conversion<To, From, gt_converts<To, From>::saturates>::of(x);
}
template <class To> GT_FUNCTION To gt_cast(gt_f16 x) { return gt_cast<To>(gt_widen(x)); }
template <class To> GT_FUNCTION To gt_cast(gt_bf16 x) { return gt_cast<To>(gt_widen(x)); }

// A float as the low bits of an integer `Through`, 0 where that does not hold it.
template <class To, class Through, class From> GT_FUNCTION To gt_wrapped(From x) {
  const From limit = sizeof(Through) == 8 ? (From)9223372036854775808.0 : (From)2147483648.0;
  return gt_abs(x) < limit ? (To)(Through)x : (To)0;
}

// ---- vectors: elements side by side, moved by the widest access that their alignment allows

template <int bytes> struct gt_word;
#ifdef GT_EMULATED
#define GT_WORD(bytes, wide) template <> struct gt_word<bytes> { struct type { __align__(bytes) gt_u8 part[bytes]; }; };
#else
#define GT_WORD(bytes, wide) template <> struct gt_word<bytes> { typedef wide type; };
#endif
GT_WORD(2, gt_u16)
GT_WORD(4, gt_u32)
GT_WORD(8, uint2)
GT_WORD(16, uint4)
template <int count, class T> struct gt_vector {
  static const int bytes = count * sizeof(T) < 16 ? count * (int)sizeof(T) : 16, each = bytes / sizeof(T);
  typedef typename gt_word<bytes>::type word;
  T part[count];
};
// Elements of less than 4 bytes are taken out of registers, and put into them, by shifts, also where they were moved
// one by one: so the compiler widens both halves of a register where they are, and narrows two floats at once.
template <int bytes> struct gt_small { typedef gt_u16 type; };
template <> struct gt_small<1> { typedef gt_u8 type; };
template <class T> struct gt_packed { static const int each = sizeof(T) < 4 ? 4 / sizeof(T) : 1; };
template <class T> GT_FUNCTION gt_u32 gt_bits_at(T x, int i) {
  return (gt_u32)gt_bitcast<typename gt_small<sizeof(T)>::type>(x) << 8 * sizeof(T) * (i % gt_packed<T>::each);
}
template <class T> GT_FUNCTION T gt_part_at(gt_u32 word, int i) {
  typedef typename gt_small<sizeof(T)>::type bits;
  return gt_bitcast<T>((bits)(word >> 8 * sizeof(T) * (i % gt_packed<T>::each)));
}
template <int count, class T> struct gt_registers {
  static const bool used = sizeof(T) < 4 && count * sizeof(T) % 4 == 0;
  gt_u32 part[used ? count * sizeof(T) / 4 : 1];
};
template <bool aligned> GT_FUNCTION bool gt_is_aligned(const void* p, int bytes) {
  const bool found = (unsigned long long)p % bytes == 0;
#ifdef GT_EMULATED
  if (aligned && !found) gt::report("an address that should be a multiple of 16 bytes", __LINE__);
#endif
  return aligned || found;
}
template <int count, bool aligned = false, class T> GT_FUNCTION gt_vector<count, T> gt_read(const T* from) {
  typedef gt_vector<count, T> vector;
  vector found;
  gt_registers<count, T> packed = {};
  if (gt_is_aligned<aligned>(from, vector::bytes)) {
    _Pragma("unroll") for (int i = 0; i < count / vector::each; i++) {
      const typename vector::word w = ((const typename vector::word*)from)[i];
      if constexpr (packed.used) memcpy((gt_u8*)packed.part + i * sizeof w, &w, sizeof w);
      else memcpy(found.part + i * vector::each, &w, sizeof w);
    }
  } else {
    _Pragma("unroll") for (int i = 0; i < count; i++) {
      if constexpr (packed.used) packed.part[i / gt_packed<T>::each] |= gt_bits_at(from[i], i);
      else found.part[i] = from[i];
    }
  }
  if constexpr (packed.used)
    _Pragma("unroll") for (int i = 0; i < count; i++)
      found.part[i] = gt_part_at<T>(packed.part[i / gt_packed<T>::each], i);
  return found;
}
template <int count, bool aligned = false, class T> GT_FUNCTION void gt_write(T* to, const gt_vector<count, T>& x) {
  typedef gt_vector<count, T> vector;
  gt_vector<count, T> y = x;
  gt_registers<count, T> packed = {};
  if constexpr (packed.used) {
    _Pragma("unroll") for (int i = 0; i < count; i++)
      packed.part[i / gt_packed<T>::each] |= gt_bits_at(x.part[i], i);
#ifndef GT_EMULATED
    _Pragma("unroll") for (gt_u32& word : packed.part) asm("" : "+r"(word));  // packed before the branch
#endif
    _Pragma("unroll") for (int i = 0; i < count; i++) y.part[i] = gt_part_at<T>(packed.part[i / gt_packed<T>::each], i);
  }
  if (gt_is_aligned<aligned>(to, vector::bytes)) {
    _Pragma("unroll") for (int i = 0; i < count / vector::each; i++) {
      typename vector::word w;
      if constexpr (packed.used) memcpy(&w, (gt_u8*)packed.part + i * sizeof w, sizeof w);
      else memcpy(&w, x.part + i * vector::each, sizeof w);
      ((typename vector::word*)to)[i] = w;
    }
  } else {
    _Pragma("unroll") for (int i = 0; i < count; i++) to[i] = y.part[i];
  }
}
template <int count, bool aligned = false, class T> GT_FUNCTION void gt_take(T* to, const T* from) {  // `to` is a thread's own
  const gt_vector<count, T> x = gt_read<count, aligned>(from);
  _Pragma("unroll") for (int i = 0; i < count; i++) to[i] = x.part[i];
}
template <int count, bool aligned = false, class T> GT_FUNCTION void gt_give(T* to, const T* from) {  // `from` is a thread's own
  gt_vector<count, T> x;
  _Pragma("unroll") for (int i = 0; i < count; i++) x.part[i] = from[i];
  gt_write<count, aligned>(to, x);
}
template <int count, bool aligned = false, class T> GT_FUNCTION void gt_move(T* to, const T* from) {
  gt_write<count, aligned>(to, gt_read<count, aligned>(from));
}

// ---- warps: neighbours exchange values in a fixed order, so that all of them come to the same result

template <class T> GT_FUNCTION T gt_from_lane(T x, int distance, unsigned site) {
#ifdef GT_EMULATED
  return gt_shuffle_xor(site, ~0u, x, distance);
#else
  if constexpr (sizeof(T) < 4) return (T)__shfl_xor_sync(~0u, (int)x, distance);
  else return __shfl_xor_sync(~0u, x, distance);
#endif
}
template <class T> GT_FUNCTION T gt_from_thread(T x, int lane, unsigned site) {
#ifdef GT_EMULATED
  return gt_shuffle(site, ~0u, x, lane);
#else
  if constexpr (sizeof(T) < 4) return (T)__shfl_sync(~0u, (int)x, lane);
  else return __shfl_sync(~0u, x, lane);
#endif
}
#define GT_WARP(name, combined) \
  template <int width, class T> GT_FUNCTION T name(T x, unsigned site) { \
    _Pragma("unroll") for (int d = width / 2; d > 0; d /= 2) { \
      const T y = gt_from_lane(x, d, site); \
      x = combined; \
    } \
    return x; \
  }
template <class T> GT_FUNCTION T gt_sum(T a, T b) {
  if constexpr (gt_is_float<T>::value) return a + b;
  else return gt_add(a, b);
}
template <class T> GT_FUNCTION T gt_product(T a, T b) {
  if constexpr (gt_is_float<T>::value) return a * b;
  else return gt_mul(a, b);
}
GT_WARP(gt_warp_add, gt_sum(x, y))
GT_WARP(gt_warp_mul, gt_product(x, y))
GT_WARP(gt_warp_min, gt_min(x, y))
GT_WARP(gt_warp_max, gt_max(x, y))
GT_WARP(gt_warp_and, (T)(x & y))
GT_WARP(gt_warp_or, (T)(x | y))

// ---- memory that several threads add to at the same time

template <class T> GT_FUNCTION void gt_atomic_add(T* p, T value) {
#ifdef GT_EMULATED
  *p = gt_sum(*p, value);  // one thread runs at a time
#else
  if constexpr (gt_is_float<T>::value) atomicAdd(p, value);
  else if constexpr (sizeof(T) == 8) atomicAdd((gt_u64*)p, (gt_u64)value);
  else atomicAdd((gt_u32*)p, (gt_u32)value);
#endif
}

// ---- copies to shared memory that nobody waits for yet: what is not aligned to 16 bytes is copied at once

template <int count, bool aligned = false, class T> GT_FUNCTION void gt_copy_async(T* to, const T* from, bool inside, unsigned line) {
#ifdef GT_EMULATED
  gt_is_aligned<aligned>(from, 16);
  gt::begin<count>(to, inside ? from : nullptr, line);
#else
  static_assert(count * sizeof(T) == 16, "copies are of 16 bytes");
  if (gt_is_aligned<aligned>(from, 16)) {
    const unsigned place = (unsigned)__cvta_generic_to_shared(to);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(place), "l"(from), "r"(inside ? 16 : 0) : "memory");
  } else {
    _Pragma("unroll") for (int i = 0; i < count; i++) to[i] = inside ? from[i] : T{};
  }
#endif
}
template <int groups> GT_FUNCTION void gt_await_copies() {
#ifdef GT_EMULATED
  gt::end_copies(groups);
#else
  asm volatile("cp.async.commit_group;\ncp.async.wait_group %0;" ::"n"(groups) : "memory");
#endif
}

// ---- matrices, by a warp: which thread has what is said at kernels/ir.py's statements

template <bool transposed, class T> GT_FUNCTION void gt_load_matrices(gt_u32* to, const T* row, unsigned site) {
#ifdef GT_EMULATED
  const T* rows[32];
  gt_all_lanes(site, row, rows);
  const unsigned lane = threadIdx.x % 32, r = lane / 4, c = lane % 4 * 2;
  for (unsigned j = 0; j < 4; j++) {
    if constexpr (sizeof(T) == 4) {
      to[j] = gt_bitcast<gt_u32>(rows[8 * j + r][c / 2]);
    } else {
      const T low = transposed ? rows[8 * j + c][r] : rows[8 * j + r][c];
      const T high = transposed ? rows[8 * j + c + 1][r] : rows[8 * j + r][c + 1];
      to[j] = low.bits | (gt_u32)high.bits << 16;
    }
  }
  gt::meet(~0u, site + 1);  // all have read
#else
  const unsigned place = (unsigned)__cvta_generic_to_shared(row);
  if constexpr (transposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(place) : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(place) : "memory");
#endif
}

#ifdef GT_EMULATED
template <class T> GT_FUNCTION float gt_part_of(gt_u32 word, unsigned which) {
  if constexpr (sizeof(T) == 4) return gt_float_bits(word & ~0x1fffu);  // the other bits do not count
  else return gt_widen(T{(gt_u16)(word >> 16 * which)});
}
template <class T> GT_FUNCTION void gt_multiply_matrices(float* sums, const gt_u32* a, const gt_u32* b, unsigned site) {
  struct Own { const gt_u32 *a, *b; };
  const Own own = {a, b}, *of[32];
  gt_all_lanes(site, &own, of);
  const unsigned lane = threadIdx.x % 32, each = 4 / sizeof(T), wide = 4 * each;  // elements of 4 bytes, of 16
  float found[4];
  for (unsigned i = 0; i < 4; i++) {
    const unsigned row = lane / 4, half = i / 2, column = lane % 4 * 2 + i % 2;
    found[i] = sums[i];
    for (unsigned k = 0; k < 2 * wide; k++)
      found[i] += gt_part_of<T>(of[row * 4 + k % wide / each]->a[half + k / wide * 2], k % each) *
                  gt_part_of<T>(of[column * 4 + k % wide / each]->b[k / wide], k % each);
  }
  gt::meet(~0u, site + 1);  // all have read
  for (unsigned i = 0; i < 4; i++) sums[i] = found[i];
}
#define GT_MULTIPLY(name, type, deep, kind) \
  GT_FUNCTION void name(float* sums, const gt_u32* a, const gt_u32* b, unsigned site) { \
    gt_multiply_matrices<type>(sums, a, b, site); \
  }
#else
#define GT_MULTIPLY(name, type, deep, kind) \
  GT_FUNCTION void name(float* d, const gt_u32* a, const gt_u32* b, unsigned site) { \
    asm volatile("mma.sync.aligned.m16n8k" deep ".row.col.f32." kind "." kind ".f32 " \
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1])); \
  }
#endif
GT_MULTIPLY(gt_multiply_bf16, gt_bf16, "16", "bf16")
GT_MULTIPLY(gt_multiply_f16, gt_f16, "16", "f16")
GT_MULTIPLY(gt_multiply_f32, float, "8", "tf32")

// ---- tiles in shared memory, by four warps: functions that tiles.py writes use these

#ifdef GT_EMULATED
template <bool turned, class T> GT_FUNCTION const T* gt_in_tile(const T* tile, unsigned row, unsigned k) {
  const unsigned each = 16 / sizeof(T), line = turned ? row / 64 * 64 + k : row, at = turned ? row % 64 : k;
  return tile + line * (128 / sizeof(T)) + (at / each ^ line % 8) * each + at % each;
}
template <class T> GT_FUNCTION float gt_tile_part(T x) {
  if constexpr (sizeof(T) == 4) return gt_float_bits(gt_bitcast<gt_u32>(x) & ~0x1fffu);  // the other bits do not count
  else return gt_widen(x);
}
template <unsigned rows, class T> static void gt_touch_tile(const T* tile, unsigned line) {
  const unsigned each = 16 / sizeof(T);  // as tensor cores read it: 16 bytes of eight lines at a time
  for (unsigned i = gt::current->number % 128; i < rows * 8; i += 128) {
    const unsigned at = i / 64 * 8 + i % 8, part = i / 8 % 8;
    gt::touched_many((T*)tile + (at * 8 + (part ^ at % 8)) * each, each, false, (int)line);
  }
}
template <unsigned columns, bool turned, bool fresh, class T>
static void gt_add_products(const gt::Product& p, const float (&left)[2][128 / sizeof(T)]) {
  const unsigned lane = gt::current->number % 32;
  const T* b = (const T*)p.b;
  gt_touch_tile<columns>(b, p.line);
  for (unsigned j = 0; j < columns / 4; j++) {
    float* const sums = p.sums + j / 2 * 4 + j % 2;
    if (fresh) sums[0] = sums[2] = 0.0f;
    for (unsigned k = 0; k < 128 / sizeof(T); k++) {
      const float right = gt_tile_part(*gt_in_tile<turned>(b, j / 2 * 8 + lane % 4 * 2 + j % 2, k));
      for (unsigned i = 0; i < 2; i++) sums[2 * i] += left[i][k] * right;
    }
  }
}
template <unsigned columns, bool turned_a, bool turned_b, bool fresh, class T>
static void gt_multiply_tiles(const gt::Product& p, unsigned) {
  const unsigned me = gt::current->number % 128;
  const T* a = (const T*)p.a;
  gt_touch_tile<64>(a, p.line);
  float left[2][128 / sizeof(T)];
  for (unsigned i = 0; i < 2; i++)
    for (unsigned k = 0; k < 128 / sizeof(T); k++)
      left[i][k] = gt_tile_part(*gt_in_tile<turned_a>(a, me / 32 * 16 + me % 32 / 4 + 8 * i, k));
  gt_add_products<columns, turned_b, fresh, T>(p, left);
}
template <unsigned columns, bool turned, bool fresh, class T>
static void gt_multiply_fragment(const gt::Product& p, unsigned site) {
  const gt_u32* of[32];
  gt_all_lanes(site, (const gt_u32*)p.a, of);
  float left[2][64];
  for (unsigned i = 0; i < 2; i++)
    for (unsigned k = 0; k < 64; k++)
      left[i][k] = gt_part_of<T>(of[threadIdx.x % 32 / 4 * 4 + k % 8 / 2][k / 8 * 2 + i], k % 2);
  gt::meet(~0u, site + 1);  // all have read
  gt_add_products<columns, turned, fresh, T>(p, left);
}
GT_FUNCTION void gt_publish() {}
template <int groups> GT_FUNCTION void gt_settle_tiles(unsigned site) { gt::settle(groups, site); }
template <int count, class T> GT_FUNCTION void gt_settled(T*) {}
#else
// Where a tile begins and how it lies: rows in groups of eight are 1024 bytes apart, those of a turned tile in
// groups of 64 are 8192; lines of 128 bytes, their parts in other places (swizzled).
GT_FUNCTION gt_u64 gt_tile(const void* at) {
  const gt_u64 place = (gt_u64)__cvta_generic_to_shared(at);
  return place >> 4 & 0x3fff | (gt_u64)(8192 >> 4) << 16 | (gt_u64)(1024 >> 4) << 32 | (gt_u64)1 << 62;
}
GT_FUNCTION void gt_publish() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
template <int groups> GT_FUNCTION void gt_settle_tiles(unsigned) {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(groups) : "memory");
}
// So that the compiler takes no sum out of its register before it is there, and writes to no factor before.
template <int count> GT_FUNCTION void gt_settled(float* sums) {
  _Pragma("unroll") for (int i = 0; i < count; i++) asm volatile("" : "+f"(sums[i])::"memory");
}
template <int count> GT_FUNCTION void gt_settled(gt_u32* factors) {
  _Pragma("unroll") for (int i = 0; i < count; i++) asm volatile("" : "+r"(factors[i])::"memory");
}
#endif

// A float's fraction to 10 bits: to nearest, ties away from 0.
GT_FUNCTION gt_u32 gt_tf32(float x) {
#ifdef GT_EMULATED
  const gt_u32 bits = gt_bitcast<gt_u32>(x);
  if (x != x) return 0x7fffffff;
  return gt_abs(x) == INFINITY ? bits : (bits + 0x1000) & ~0x1fffu;
#else
  // half of the last bit that counts, but to infinity and NaN: what cvt.rna.tf32 does, by fewer instructions
  gt_u32 bits = __float_as_uint(x);
  asm("{.reg .pred p; .reg .f32 a; abs.f32 a, %1; setp.lt.f32 p, a, 0f7F800000; @p add.u32 %0, %0, 0x1000;}" : "+r"(bits) : "f"(x));
  return bits;
#endif
}

// Two neighbours of a matrix from two floats.
#ifdef GT_EMULATED
#define GT_PAIR(name, narrow, kind) \
  GT_FUNCTION gt_u32 name(float low, float high) { return narrow(low).bits | (gt_u32)narrow(high).bits << 16; }
#else
#define GT_PAIR(name, narrow, kind) \
  GT_FUNCTION gt_u32 name(float low, float high) { \
    gt_u32 both; \
    asm("cvt.rn." kind "x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low)); \
    return both; \
  }
#endif
GT_PAIR(gt_pair_bf16, gt_narrow_bf16, "bf16")
GT_PAIR(gt_pair_f16, gt_narrow_f16, "f16")
