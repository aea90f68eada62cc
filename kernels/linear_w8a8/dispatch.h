// The functions of one instruction set by the rows of x in a tile; included by cpu.cpp once.

using Tile = void (*)(const uint8_t* w, const int8_t* x, int64_t stride, int64_t quads,
                      int32_t* out);

struct Functions {
  int widest;                 // rows of x in a tile, at most
  Tile of[2][kMostRows + 1];  // for one block of w and for two
  void (*quantize[2])(const Weight&, const void*, void*, Row);  // fp32, bf16
  void (*finish[2])(const Finish&, const int32_t*, int64_t, int64_t, int);
};

#define BOTH(space)                                \
  {space::quantize_fp32, space::quantize_bf16}, {  \
    space::finish_fp32, space::finish_bf16         \
  }

// What the registers of an instruction set hold decides how wide a tile can be.
const Functions kScalar = {
    2,
    {{nullptr, scalar::tile<1, 1, 1>, scalar::tile<2, 1, 1>},
     {nullptr, scalar::tile<1, 2, 1>, scalar::tile<2, 2, 1>}},
    BOTH(scalar)};
#if defined(__x86_64__)
const Functions kAvx2 = {2,
                         {{nullptr, avx2::tile<1, 1, 1>, avx2::tile<2, 1, 1>},
                          {nullptr, avx2::tile<1, 2, 1>, avx2::tile<2, 2, 1>}},
                         BOTH(avx2)};
const Functions kAvxVnni = {
    6,
    {{nullptr, avx_vnni::tile<1, 1, 4>, avx_vnni::tile<2, 1, 2>, avx_vnni::tile<3, 1, 2>,
      avx_vnni::tile<4, 1, 1>, avx_vnni::tile<5, 1, 1>, avx_vnni::tile<6, 1, 1>},
     {nullptr, avx_vnni::tile<1, 2, 2>, avx_vnni::tile<2, 2, 1>, avx_vnni::tile<3, 2, 1>,
      avx_vnni::tile<4, 2, 1>, avx_vnni::tile<5, 2, 1>, avx_vnni::tile<6, 2, 1>}},
    BOTH(avx_vnni)};
const Functions kAvx512Vnni = {
    12,
    {{nullptr, avx512_vnni::tile<1, 1, 8>, avx512_vnni::tile<2, 1, 4>, avx512_vnni::tile<3, 1, 4>,
      avx512_vnni::tile<4, 1, 4>, avx512_vnni::tile<5, 1, 2>, avx512_vnni::tile<6, 1, 2>,
      avx512_vnni::tile<7, 1, 2>, avx512_vnni::tile<8, 1, 2>, avx512_vnni::tile<9, 1, 1>,
      avx512_vnni::tile<10, 1, 1>, avx512_vnni::tile<11, 1, 1>, avx512_vnni::tile<12, 1, 1>},
     {nullptr, avx512_vnni::tile<1, 2, 4>, avx512_vnni::tile<2, 2, 4>, avx512_vnni::tile<3, 2, 2>,
      avx512_vnni::tile<4, 2, 2>, avx512_vnni::tile<5, 2, 2>, avx512_vnni::tile<6, 2, 1>,
      avx512_vnni::tile<7, 2, 1>, avx512_vnni::tile<8, 2, 1>, avx512_vnni::tile<9, 2, 1>,
      avx512_vnni::tile<10, 2, 1>, avx512_vnni::tile<11, 2, 1>, avx512_vnni::tile<12, 2, 1>}},
    BOTH(avx512_vnni)};
#endif

const Functions& functions_of(int64_t isa) {
#if defined(__x86_64__)
  if (isa == 3) return kAvx512Vnni;
  if (isa == 2) return kAvxVnni;
  if (isa == 1) return kAvx2;
#endif
  return kScalar;
}
