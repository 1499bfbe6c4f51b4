// Codes of a block, one byte each in the order of its weights, into their places. Included once per
// instruction set.

TARGET static inline void NAME(store_split)(lane_u8 low, lane_u8 high, uint8_t *qs) {
  const lane_u8 both = (low & 15) | (high << 4);
  memcpy(qs, &both, 16);
}

TARGET static inline void NAME(store_fifth)(lane_u8 low, lane_u8 high, uint8_t *target) {
  const lane_bits first = __builtin_convertvector((low & 16) != 0, lane_bits);
  const lane_bits second = __builtin_convertvector((high & 16) != 0, lane_bits);
  memcpy(target, &first, 2);
  memcpy(target + 2, &second, 2);
}

TARGET static void NAME(pack_pairs)(const uint8_t *codes, uint8_t *qs) {
  for (int half = 0; half < 2; half++) {
    const uint8_t *c = codes + 128 * half;
    for (int j = 0; j < 32; j++) {
      qs[32 * half + j] = (uint8_t)((c[j] & 3) | (c[j + 32] & 3) << 2 | (c[j + 64] & 3) << 4 |
                                    (c[j + 96] & 3) << 6);
    }
  }
}

TARGET static void NAME(pack_k_nibbles)(const uint8_t *codes, uint8_t *qs) {
  for (int k = 0; k < 4; k++) {
    for (int j = 0; j < 32; j++) {
      qs[32 * k + j] = (uint8_t)((codes[64 * k + j] & 15) | codes[64 * k + 32 + j] << 4);
    }
  }
}

/// One bit, the `bit`th, of each of 256 codes: byte j has those of weights j, j + 32, j + 64 ...
TARGET static void NAME(pack_bit)(const uint8_t *codes, int bit, uint8_t *target) {
  for (int j = 0; j < 32; j++) {
    int bits = 0;
    for (int k = 0; k < 8; k++) bits |= (codes[32 * k + j] >> bit & 1) << k;
    target[j] = (uint8_t)bits;
  }
}

TARGET static void NAME(pack_six)(const uint8_t *codes, uint8_t *target) {
  for (int half = 0; half < 2; half++) {
    const uint8_t *c = codes + 128 * half;
    uint8_t *low = target + 64 * half, *high = target + 128 + 32 * half;
    for (int l = 0; l < 32; l++) {
      low[l] = (uint8_t)((c[l] & 15) | c[l + 64] << 4);
      low[l + 32] = (uint8_t)((c[l + 32] & 15) | c[l + 96] << 4);
      high[l] = (uint8_t)(c[l] >> 4 | c[l + 32] >> 4 << 2 | c[l + 64] >> 4 << 4 |
                          c[l + 96] >> 4 << 6);
    }
  }
}

/// Bytes are the trits' number as a fraction of 243, rounded up in 256ths.
TARGET static void NAME(pack_trits)(const uint8_t *c, uint8_t *target) {
  for (int m = 0; m < 32; m++) {
    const uint32_t v =
        c[m] * 81u + c[m + 32] * 27u + c[m + 64] * 9u + c[m + 96] * 3u + c[m + 128];
    target[m] = (uint8_t)((v * 256 + 242) / 243);
  }
  for (int m = 0; m < 16; m++) {
    const uint8_t *t = c + 160 + m;
    const uint32_t v = t[0] * 81u + t[16] * 27u + t[32] * 9u + t[48] * 3u + t[64];
    target[32 + m] = (uint8_t)((v * 256 + 242) / 243);
  }
  for (int m = 0; m < 4; m++) {
    const uint8_t *t = c + 240 + m;
    const uint32_t v = t[0] * 81u + t[4] * 27u + t[8] * 9u + t[12] * 3u;
    target[48 + m] = (uint8_t)((v * 256 + 242) / 243);
  }
}

/// All codes of one block of any type; scales are left alone.
TARGET static inline __attribute__((always_inline)) void NAME(pack)(
    enum pare_block_type type, const uint8_t *codes, uint8_t *target) {
  lane_u8 low, high;
  memcpy(&low, codes, 16);
  memcpy(&high, codes + 16, 16);
  switch (type) {
    case PARE_BLOCK_Q4_0:
    case PARE_BLOCK_IQ4_NL: NAME(store_split)(low, high, target + 2); break;
    case PARE_BLOCK_Q4_1: NAME(store_split)(low, high, target + 4); break;
    case PARE_BLOCK_MXFP4: NAME(store_split)(low, high, target + 1); break;
    case PARE_BLOCK_Q5_0:
      NAME(store_fifth)(low, high, target + 2);
      NAME(store_split)(low, high, target + 6);
      break;
    case PARE_BLOCK_Q5_1:
      NAME(store_fifth)(low, high, target + 4);
      NAME(store_split)(low, high, target + 8);
      break;
    case PARE_BLOCK_Q8_0:
      low ^= 128;
      high ^= 128;
      memcpy(target + 2, &low, 16);
      memcpy(target + 18, &high, 16);
      break;
    case PARE_BLOCK_Q2_K: NAME(pack_pairs)(codes, target + 16); break;
    case PARE_BLOCK_TQ2_0: NAME(pack_pairs)(codes, target); break;
    case PARE_BLOCK_TQ1_0: NAME(pack_trits)(codes, target); break;
    case PARE_BLOCK_Q3_K:
      NAME(pack_bit)(codes, 2, target);
      NAME(pack_pairs)(codes, target + 32);
      break;
    case PARE_BLOCK_Q4_K: NAME(pack_k_nibbles)(codes, target + 16); break;
    case PARE_BLOCK_Q5_K:
      NAME(pack_bit)(codes, 4, target + 16);
      NAME(pack_k_nibbles)(codes, target + 48);
      break;
    case PARE_BLOCK_Q6_K: NAME(pack_six)(codes, target); break;
    case PARE_BLOCK_IQ4_XS:
      for (int k = 0; k < 8; k++) {
        memcpy(&low, codes + 32 * k, 16);
        memcpy(&high, codes + 32 * k + 16, 16);
        NAME(store_split)(low, high, target + 8 + 16 * k);
      }
      break;
    default: break;
  }
}
