#pragma once
// All of shoal.

#include "shoal/ipc/errors.h"
#include "shoal/ipc/lock.h"
#include "shoal/ipc/message.h"
#include "shoal/ipc/process.h"
#include "shoal/ipc/queue.h"
#include "shoal/ipc/timeout.h"
#include "shoal/pool/async_result.h"
#include "shoal/pool/pool.h"
#include "shoal/shared/array.h"
#include "shoal/shared/value.h"
