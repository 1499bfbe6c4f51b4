#ifndef PARE_CKERNELS_H
#define PARE_CKERNELS_H
#include "attention.h"
#include "blocks.h"
#include "dense.h"
#include "divergence.h"
#include "files.h"
#include "gradients.h"
#include "mapping.h"
#include "nf4.h"
#include "packed.h"
#include "pool.h"
#include "quantize_groups.h"
#include "rows.h"
#include "sha256.h"
#include "stream.h"
#include "vector.h"
#endif
