#pragma once
// All that threads and processes synchronise by.

#include "shoal/ipc/barrier.h"
#include "shoal/ipc/condition.h"
#include "shoal/ipc/event.h"
#include "shoal/ipc/lock.h"
#include "shoal/ipc/semaphore.h"
