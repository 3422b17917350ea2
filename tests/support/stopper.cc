#include "tests/support/stopper.h"

#include <errno.h>
#include <signal.h>

#include <chrono>
#include <random>
#include <thread>
#include <utility>

#include "shoal/ipc/errors.h"
#include "tests/support/step.h"

namespace shoal::support {
namespace {

constexpr int kEnough = 100;
constexpr int kFew = 20;
constexpr std::chrono::seconds kLongest{2};

void send(pid_t process, int signal) {
  if (kill(process, signal) != 0) throw_system_error(errno, "kill");
}

}  // namespace

Stopper::Stopper(std::vector<pid_t> whom)
    : whom_(std::move(whom)), child_([this](Child&) {
        std::mt19937 random(7);
        const Deadline deadline(kLongest);
        while (shared_->stops < kEnough && !deadline.passed()) {
          const pid_t process = whom_[random() % whom_.size()];
          const auto some = [&](unsigned most) {
            std::this_thread::sleep_for(
                std::chrono::microseconds(random() % most));
          };
          some(1000);
          send(process, SIGSTOP);
          if (!eventually([&] { return is_stopped(process); })) break;
          if (++shared_->stops % 12 == 0)
            std::this_thread::sleep_for(std::chrono::milliseconds(150));
          else
            some(4000);
          send(process, SIGCONT);
        }
        shared_->done = true;
      }) {}

Stopper::~Stopper() {
  child_.join();
  for (const pid_t process : whom_) kill(process, SIGCONT);
}

bool stop_at_random(const std::vector<pid_t>& whom,
                    const std::function<void()>& work) {
  const Stopper stopper(whom);
  const Deadline deadline(kPatience);
  while (stopper.working() && !deadline.passed()) work();
  return stopper.stops() >= kFew;
}

}  // namespace shoal::support
