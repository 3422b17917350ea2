// Consumers are killed while they work, again and again, and nothing is lost:
// a value that one of them had taken and not finished is delivered again.
//
//   ./bazelw run -c opt //examples:survive_kill

#include <shoal/shoal.h>

#include <chrono>
#include <cstdio>
#include <random>
#include <vector>

constexpr int kJobs = 100'000;

// Doing a job twice does no harm.
void consume(shoal::Queue<int> jobs, shoal::Array<int> done) {
  try {
    for (;;) {
      auto job = jobs.take();  // ours until `job` goes, or we die
      ++done[static_cast<std::size_t>(*job)];
    }
  } catch (const shoal::ShutDown&) {
  }
}

int main() {
  shoal::Queue<int> jobs(64);
  shoal::Array<int> done(kJobs);
  std::vector<shoal::Process> consumers;
  const auto start_one = [&] {
    shoal::Process consumer(consume, jobs, done);
    consumer.start();
    return consumer;
  };
  for (int n = 0; n < 3; ++n) consumers.push_back(start_one());
  shoal::Process producer([&] {
    for (int job = 0; job < kJobs; ++job) jobs.put(job);
    jobs.shutdown();
  });
  producer.start();
  std::mt19937 random(1);
  int kills = 0;
  while (!producer.join(std::chrono::microseconds(200))) {
    shoal::Process& victim = consumers[random() % consumers.size()];
    victim.kill();
    victim.join();
    kills += victim.exitcode() == -9;
    victim = start_one();
  }
  for (shoal::Process& consumer : consumers) consumer.join();
  int missing = 0, twice = 0;
  for (const int times : done) missing += times == 0, twice += times > 1;
  std::printf("%d jobs, %d kills: %d missing, %d delivered again\n", kJobs,
              kills, missing, twice);
  return missing == 0 && kills > 0 ? 0 : 1;
}
