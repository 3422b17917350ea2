#pragma once
// SIGKILL at the instructions of a worker from the end of its sleep to the next
// one, or to its end. The workers are those of a real pool, and its nursery
// settles what they leave.
//
//   class MyKill : public WorkerKillScene {};
//   kill_at_every_step("A D V", {.submit = [](Pool& pool) {
//     return Results{later(pool.apply_async([] { return answer(0); }))};
//   }});

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "shoal/ipc/timeout.h"
#include "shoal/pool/pool.h"
#include "tests/pool/scene.h"

namespace shoal::support {

// Where a task ran, for the how manieth time, and bytes to come back with.
struct Answer {
  pid_t pid;
  std::uint32_t attempt;
  std::string bytes;
};
// In a task: the answer of result number `mark`.
Answer answer(std::size_t mark, std::string bytes = {});

// Waits for one result.
using Later = std::function<Answer(Timeout)>;
using Results = std::vector<Later>;
inline Later later(AsyncResult<Answer> result) {
  return [kept = std::make_shared<AsyncResult<Answer>>(std::move(result))](
             Timeout timeout) { return kept->get(timeout); };
}

// What a kill has done to a result.
enum class Fate : char {
  by_other = 'A',
  died = 'D',
  retried = 'R',  // by another worker, again
  by_victim = 'V',
  broken = 'B',  // the pool is, by what its initializer threw
};

struct Scenario {
  // Given when the victim sleeps; all tasks of one round.
  std::function<Results(Pool&)> submit;
  std::string expected_bytes = {};
  bool throws = false;
  // All results are of one task.
  bool chunk = false;
  // Another worker is at work until the victim is dead.
  bool partner = false;
  PoolOptions options = {.processes = 1};
  // Else as `options` say.
  std::function<void(std::optional<Pool>&)> make = {};
  // What the victim has completed is collected, and its record used again,
  // before the nursery learns that it is dead.
  bool late_nursery = false;
  bool new_pool = false;                  // one for each round
  std::function<void(Pool&)> after = {};  // the kill
  // So many instructions around each change of what is shared are killed at,
  // and all between the first and the last change unless it `throws` or looks
  // at thousands of cells in between.
  bool scans = false;
  std::size_t near = 400;
};

class WorkerKillScene : public PoolScene {
 protected:
  void SetUp() override;

  // Fates of the results at each kill, neighbours taken as one, must be `sane`,
  // or follow it where time allowed only a sample (sample.h).
  void kill_at_every_step(std::string_view sane, const Scenario& scenario);
};

}  // namespace shoal::support
