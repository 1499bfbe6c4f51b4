#ifndef PARE_CKERNELS_H
#define PARE_CKERNELS_H
#include <stddef.h>
#include <stdint.h>
#include "files.h"
#include "mapping.h"
#include "sha256.h"
#endif
