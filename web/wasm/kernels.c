/* The sums of layers, in integers of 16 bits and sums of 32, eight products at a time.

   web/wasm/build.sh makes kernels.wasm of it; web/src/codec/exact/wasm.js calls it, and only for
   models whose numbers fit.  Weights are [taps][pairs][outputs][2]: of two inputs for each output.
   Outputs come in fours, with zeros where there are none. */

#include <stdint.h>
#include <wasm_simd128.h>

typedef v128_t Vector;

enum { WIDE = 4 }; /* vectors of outputs at once */

static inline Vector pair_of(const int16_t *x) { return wasm_v128_load32_splat(x); }

/* Adds what `pairs` of inputs of P places make of V vectors of outputs. */
#define ACCUMULATE(P, V)                                                                        \
  for (int32_t pair = 0; pair < pairs; pair++) {                                                \
    Vector weights[V], inputs[P];                                                               \
    for (int v = 0; v < V; v++) weights[v] = wasm_v128_load(w + 8 * v);                         \
    for (int p = 0; p < P; p++) inputs[p] = pair_of(x + p * stride + 2 * pair);                 \
    for (int p = 0; p < P; p++)                                                                 \
      for (int v = 0; v < V; v++)                                                               \
        sums[p][v] = wasm_i32x4_add(sums[p][v], wasm_i32x4_dot_i16x8(inputs[p], weights[v]));   \
    w += 2 * outputs;                                                                           \
  }

typedef struct {
  const int16_t *weights; /* [taps][pairs][outputs][2] */
  const int32_t *bias;    /* [outputs] */
  const float *factor;    /* [outputs], 2 ** -shift */
  int32_t pairs, outputs, top;
} Layer;

/* What a layer passes on of four sums: shifted, and cut to what is from 0 to `top`.  Shifting is a
   product with a power of two, exact for sums below 2**24; numbers that are not negative are then
   rounded towards 0. */
static inline Vector passed(Vector sums, const float *factor, Vector top) {
  Vector positive = wasm_i32x4_max(sums, wasm_i32x4_splat(0));
  Vector scaled = wasm_f32x4_mul(wasm_f32x4_convert_i32x4(positive), wasm_v128_load(factor));
  return wasm_i32x4_min(wasm_i32x4_trunc_sat_f32x4(scaled), top);
}

static inline void store_passed(int16_t *out, Vector sums, const float *factor, Vector top) {
  Vector four = passed(sums, factor, top);
  wasm_v128_store64_lane(out, wasm_i16x8_narrow_i32x4(four, four), 0);
}

/* For P places whose inputs lie `stride` apart: the sums of outputs `at` to `at + 4 V`, over taps
   whose inputs and weights begin at the offsets in `taps`. */
#define BLOCK(P, V)                                                                             \
  static inline void block_##P##_##V(const Layer *layer, const int16_t *from, int32_t stride,   \
                                     const int32_t (*taps)[2], int32_t n, int32_t at,           \
                                     int16_t *out, int32_t out_stride, int32_t *raw) {          \
    const int32_t pairs = layer->pairs, outputs = layer->outputs;                               \
    Vector sums[P][V];                                                                          \
    for (int p = 0; p < P; p++)                                                                 \
      for (int v = 0; v < V; v++) sums[p][v] = wasm_v128_load(layer->bias + at + 4 * v);        \
    for (int32_t tap = 0; tap < n; tap++) {                                                     \
      const int16_t *x = from + taps[tap][0];                                                   \
      const int16_t *w = layer->weights + taps[tap][1] + 2 * at;                                \
      ACCUMULATE(P, V)                                                                          \
    }                                                                                           \
    const Vector top = wasm_i32x4_splat(layer->top);                                            \
    for (int p = 0; p < P; p++)                                                                 \
      for (int v = 0; v < V; v++) {                                                             \
        if (raw) wasm_v128_store(raw + p * out_stride + at + 4 * v, sums[p][v]);                \
        else                                                                                    \
          store_passed(out + p * out_stride + at + 4 * v, sums[p][v],                           \
                       layer->factor + at + 4 * v, top);                                        \
      }                                                                                         \
  }

BLOCK(2, 4)
BLOCK(1, 4)
BLOCK(4, 1)
BLOCK(1, 1)

/* All outputs of `places`, into `out` or, as they are, into `raw`. */
static void row(const Layer *layer, const int16_t *from, int32_t stride, const int32_t (*taps)[2],
                int32_t n, int32_t places, int16_t *out, int32_t out_stride, int32_t *raw) {
  int32_t at = 0;
  for (; at + 4 * WIDE <= layer->outputs; at += 4 * WIDE) {
    int32_t p = 0;
    for (; p + 2 <= places; p += 2)
      block_2_4(layer, from + p * stride, stride, taps, n, at, out + p * out_stride, out_stride,
                raw ? raw + p * out_stride : 0);
    for (; p < places; p++)
      block_1_4(layer, from + p * stride, stride, taps, n, at, out + p * out_stride, out_stride,
                raw ? raw + p * out_stride : 0);
  }
  for (; at < layer->outputs; at += 4) {
    int32_t p = 0;
    for (; p + 4 <= places; p += 4)
      block_4_1(layer, from + p * stride, stride, taps, n, at, out + p * out_stride, out_stride,
                raw ? raw + p * out_stride : 0);
    for (; p < places; p++)
      block_1_1(layer, from + p * stride, stride, taps, n, at, out + p * out_stride, out_stride,
                raw ? raw + p * out_stride : 0);
  }
}

static const int32_t NO_TAPS[1][2] = {{0, 0}};

/* Of `places` vectors of inputs, `stride` apart, their outputs, `out_stride` apart: passed on into
   `out`, or as sums into `raw` if that is not 0. */
__attribute__((export_name("product"))) void product(const int16_t *x, int32_t stride,
                                                     int32_t places, const int16_t *weights,
                                                     const int32_t *bias, const float *factor,
                                                     int32_t pairs, int32_t outputs, int32_t top,
                                                     int16_t *out, int32_t out_stride,
                                                     int32_t *raw) {
  const Layer layer = {weights, bias, factor, pairs, outputs, top};
  row(&layer, x, stride, NO_TAPS, 1, places, out, out_stride, raw);
}

/* A transposed convolution with 3x3 taps, from x, [.., w + 2, 2 pairs] with zeros around, to
   out, [height + 2, width + 2, outputs], of which only what is inside is written; or, if `raw` is
   not 0, to its sums, [height, width, outputs].  Input (y, x) adds to (step y + i - above,
   step x + j - before). */
__attribute__((export_name("transposed"))) void transposed(
    const int16_t *x, int32_t w, const int16_t *weights, const int32_t *bias,
    const float *factor, int32_t pairs, int32_t outputs, int32_t top, int16_t *out, int32_t height,
    int32_t width, int32_t step, int32_t above, int32_t before, int32_t *raw) {
  const Layer layer = {weights, bias, factor, pairs, outputs, top};
  const int32_t of_tap = 2 * pairs * outputs;
  for (int32_t to_y = 0; to_y < height; to_y++) {
    for (int32_t phase = 0; phase < step; phase++) {
      /* The columns phase, phase + step, ... have the same taps, with inputs side by side. */
      int32_t taps[9][2], n = 0;
      for (int32_t i = (to_y + above) % step; i < 3; i += step) {
        const int32_t y = (to_y + above - i) / step + 1;
        for (int32_t j = (phase + before) % step; j < 3; j += step, n++) {
          /* Rounded down also where it is before the first: it is -1 at least. */
          const int32_t z = (phase + before - j + step) / step;
          taps[n][0] = (y * (w + 2) + z) * 2 * pairs;
          taps[n][1] = (i * 3 + j) * of_tap;
        }
      }
      const int32_t places = (width - phase + step - 1) / step;
      int16_t *to = out + ((to_y + 1) * (width + 2) + phase + 1) * outputs;
      int32_t *sums = raw ? raw + (to_y * width + phase) * outputs : 0;
      row(&layer, x, 2 * pairs, taps, n, places, to, step * outputs, sums);
    }
  }
}
