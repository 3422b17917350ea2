// SIGKILL at random: four producers and four consumers, some hundred kills a
// second, and exact accounts of every value.
//
// SHOAL_SECONDS: how long each setting is killed in, other than Mix says.

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/queue.h"
#include "tests/ipc/payload_scene.h"
#include "tests/support/child.h"
#include "tests/support/name.h"

namespace {

using namespace shoal::support;
using shoal::Deadline;
using shoal::Queue;
using shoal::ShutDown;
using std::chrono::microseconds;
using std::chrono::seconds;

// Which producer, counting every one that was ever started, and its how many.
using Item = std::uint64_t;
constexpr Item make_item(std::uint32_t producer, std::uint32_t number) {
  return Item{producer} << 32 | number;
}

constexpr std::uint32_t kPutters = 4;
constexpr std::uint32_t kGetters = 4;
constexpr std::uint32_t kEver = 1 << 15;       // of each, over all
constexpr std::uint32_t kItemsEach = 1 << 14;  // of one producer
constexpr std::size_t kMostAtOnce = 3;
constexpr int kKillsPerSecond = 400;

// Shared with all; pages that are not used cost nothing.
struct Accounts {
  std::atomic<bool> stop;
  std::atomic<std::uint64_t> gets;
  std::atomic<std::uint64_t> duplicates;
  std::atomic<std::uint64_t> out_of_order;
  // Number of puts that have returned; by the producer.
  std::array<std::atomic<std::uint32_t>, kEver> acknowledged;
  // What a consumer's last get has returned, first thing; by the consumer.
  std::array<std::array<std::atomic<Item>, kMostAtOnce>, kEver> returned;
  std::array<std::array<std::atomic<std::uint64_t>, kItemsEach / 64>, kEver>
      seen;

  bool is_seen(std::uint32_t producer, std::uint32_t number) const {
    return (seen[producer][number / 64] >> (number % 64) & 1) != 0;
  }
  void see(Item item) {
    const auto producer = static_cast<std::uint32_t>(item >> 32);
    const auto number = static_cast<std::uint32_t>(item);
    if (producer >= kEver || number >= kItemsEach) {
      ++duplicates;  // no such value was ever put
      return;
    }
    const std::uint64_t bit = std::uint64_t{1} << (number % 64);
    if ((seen[producer][number / 64].fetch_or(bit) & bit) != 0) ++duplicates;
    ++gets;
  }
};

struct Mix {
  const char* name;
  std::size_t capacity;  // 0: grows
  std::size_t at_once;   // put_many and get_many if more than one
  bool named;            // each process opens it for itself
  int seconds;
  bool texts = false;  // of many lengths, each of which says its number
  std::size_t max_bytes = std::size_t{1} << 30;
};

// What travels: the item itself, or a text that tells of it in every byte.
template <class V>
V value_of(Item item) {
  if constexpr (std::is_same_v<V, Item>)
    return item;
  else
    return text(item, 20 + (item * 2654435761u >> 7) % 3000);
}
template <class V>
std::optional<Item> item_in(const V& value) {
  if constexpr (std::is_same_v<V, Item>)
    return value;
  else
    return number_in(value);
}

template <class V>
class Crowd {
 public:
  explicit Crowd(const Mix& mix) : mix_(mix) {
    if (mix.named) {
      name_.emplace("random");
      // The parent maps it only when all is over.
      Child maker([&](Child&) { Queue<V>::create(*name_, options()); });
      EXPECT_EQ(maker.join(), 0) << maker.failures();
    } else {
      queue_.emplace(options());
    }
    for (std::uint32_t i = 0; i < kPutters; ++i) members_.push_back({true});
    for (std::uint32_t i = 0; i < kGetters; ++i) members_.push_back({false});
    for (Member& member : members_) start(member);
  }
  Crowd(const Crowd&) = delete;
  Crowd& operator=(const Crowd&) = delete;
  ~Crowd() {
    for (const Member& member : members_) kill(member.pid, SIGKILL);
    for (const Member& member : members_) waitpid(member.pid, nullptr, 0);
  }

  // Kills one at random and starts another in its place.
  void kill_one() {
    Member& member = members_[random_() % members_.size()];
    kill(member.pid, SIGKILL);
    ended_.insert(member.pid);
    ++(member.putter ? putters_killed_ : getters_killed_);
    reap();
    start(member);
  }

  // Those that came to the end of their numbers are replaced.
  void reap() {
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
      if (ended_.erase(pid) != 0) continue;
      EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0)
          << "ended with " << status;
      for (Member& member : members_)
        if (member.pid == pid) start(member);
    }
  }

  bool has_room() const {
    return started_[0] < kEver - 2 && started_[1] < kEver - 2;
  }

  // No more kills: the producers end by themselves, then the queue is shut
  // down, the consumers drain it and end. False: somebody hangs.
  bool finish() {
    accounts_->stop = true;
    bool all_ended = true;
    for (const Member& member : members_)
      if (member.putter) all_ended &= await(member);
    open().shutdown();
    for (const Member& member : members_)
      if (!member.putter) all_ended &= await(member);
    members_.clear();
    for (const pid_t pid : ended_) waitpid(pid, nullptr, 0);
    return all_ended;
  }

  Queue<V> open() const {
    return mix_.named ? Queue<V>::open(*name_) : *queue_;
  }
  std::uint64_t torn() const { return *torn_; }
  Accounts& accounts() { return *accounts_; }
  std::uint32_t putters() const { return started_[1]; }
  std::uint32_t getters() const { return started_[0]; }
  std::uint64_t putters_killed() const { return putters_killed_; }
  std::uint64_t getters_killed() const { return getters_killed_; }

 private:
  struct Member {
    bool putter;
    pid_t pid = 0;
  };

  void start(Member& member) {
    const std::uint32_t id = started_[member.putter]++;
    const pid_t parent = getpid();
    member.pid = fork();
    ASSERT_GE(member.pid, 0);
    if (member.pid != 0) return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setpriority(PRIO_PROCESS, 0, 0);
    if (getppid() != parent) _exit(2);
    int status = 3;
    try {
      Queue<V> queue = open();
      if (member.putter)
        put_all(queue, id);
      else
        get_all(queue, id);
      status = 0;
    } catch (const std::exception& error) {
      fprintf(stderr, "%s %u: %s\n", member.putter ? "putter" : "getter", id,
              error.what());
    }
    _exit(status);
  }

  shoal::QueueOptions options() const {
    return {.maxsize = mix_.capacity, .max_bytes = mix_.max_bytes};
  }

  void put_all(Queue<V>& queue, std::uint32_t id) {
    auto& acknowledged = accounts_->acknowledged[id];
    std::array<V, kMostAtOnce> items;
    for (std::uint32_t n = 0; n + kMostAtOnce < kItemsEach;) {
      if (accounts_->stop) return;
      if (mix_.at_once == 1) {
        queue.put(value_of<V>(make_item(id, n++)));
      } else {
        for (std::uint32_t i = 0; i < mix_.at_once; ++i)
          items[i] = value_of<V>(make_item(id, n + i));
        n += static_cast<std::uint32_t>(
            queue.put_many(std::span<const V>(items.data(), mix_.at_once)));
      }
      acknowledged = n;
    }
  }

  void get_all(Queue<V>& queue, std::uint32_t id) {
    auto& returned = accounts_->returned[id];
    // Of each producer, the number that must come next, or a later one.
    std::vector<std::uint32_t> next(kEver);
    std::array<V, kMostAtOnce> values;
    std::array<Item, kMostAtOnce> items;
    try {
      for (;;) {
        std::size_t count = 1;
        if (mix_.at_once == 1)
          values[0] = queue.get();
        else
          count = queue.get_many(std::span<V>(values.data(), mix_.at_once));
        for (std::size_t i = 0; i < count; ++i) {
          const auto item = item_in(values[i]);
          if (!item) ++*torn_;
          items[i] = item.value_or(0);
        }
        for (std::size_t i = 0; i < count; ++i) returned[i] = items[i] + 1;
        for (std::size_t i = 0; i < count; ++i) {
          accounts_->see(items[i]);
          auto& expected = next[items[i] >> 32 & (kEver - 1)];
          const auto number = static_cast<std::uint32_t>(items[i]);
          if (number < expected)
            ++accounts_->out_of_order;
          else
            expected = number + 1;
        }
      }
    } catch (const ShutDown&) {
    }
  }

  bool await(const Member& member) {
    const Deadline deadline(seconds(20));
    int status;
    while (waitpid(member.pid, &status, WNOHANG) == 0) {
      if (deadline.passed()) {
        ADD_FAILURE() << (member.putter ? "a putter" : "a getter") << " hangs";
        kill(member.pid, SIGKILL);
        waitpid(member.pid, &status, 0);
        return false;
      }
      std::this_thread::sleep_for(microseconds(100));
    }
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
    return true;
  }

  const Mix& mix_;
  Shared<Accounts> accounts_;
  Shared<std::atomic<std::uint64_t>> torn_;
  std::optional<Name> name_;
  std::optional<Queue<V>> queue_;
  std::vector<Member> members_;
  std::set<pid_t> ended_;  // killed, and not reaped yet
  std::array<std::uint32_t, 2> started_{};
  std::uint64_t putters_killed_ = 0;
  std::uint64_t getters_killed_ = 0;
  std::minstd_rand random_{2025};
};

class QueueRandomKill : public testing::TestWithParam<Mix> {
 protected:
  template <class V>
  void play(const Mix& mix);
  static seconds duration() {
    const char* given = getenv("SHOAL_SECONDS");
    return seconds(given != nullptr ? atoi(given) : GetParam().seconds);
  }
};

TEST_P(QueueRandomKill, NothingIsLostOrDoubled) {
  if (GetParam().texts)
    play<std::string>(GetParam());
  else
    play<Item>(GetParam());
}

template <class V>
void QueueRandomKill::play(const Mix& mix) {
  shoal::waiting::set_slices(false);
  // So that eight busy processes leave us the time to kill them.
  setpriority(PRIO_PROCESS, 0, -10);
  Crowd<V> crowd(mix);
  Accounts& accounts = crowd.accounts();

  const auto start = std::chrono::steady_clock::now();
  const auto end = start + duration();
  auto next_kill = start;
  auto last_progress = start;
  std::uint64_t gets_before = 0;
  std::minstd_rand random{7};
  bool stalled = false;
  for (auto now = start; now < end && crowd.has_room() && !stalled;
       now = std::chrono::steady_clock::now()) {
    if (now < next_kill) {
      std::this_thread::sleep_until(next_kill);
      continue;
    }
    // Half to one and a half of the mean distance.
    next_kill +=
        microseconds(1'000'000 / kKillsPerSecond * (50 + random() % 101) / 100);
    if (next_kill < now) next_kill = now;
    crowd.kill_one();
    const std::uint64_t gets = accounts.gets;
    if (gets != gets_before) {
      gets_before = gets;
      last_progress = now;
    }
    stalled = now - last_progress > seconds(5);
  }
  const double took =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
          .count();
  EXPECT_FALSE(stalled) << "no value was delivered for 5 s";
  EXPECT_TRUE(crowd.finish());
  setpriority(PRIO_PROCESS, 0, 0);

  // Nothing is left in it, and everybody's seat is free.
  Queue<V> queue = crowd.open();
  EXPECT_THROW(
      {
        for (;;)
          if (const auto value = queue.try_get()) {
            accounts.see(item_in(*value).value_or(0));
            ADD_FAILURE() << "a value that nobody drained";
          }
      },
      ShutDown);
  shoal::liveness::Domain& domain =
      shoal::HandleAccess::object(queue)->domain();
  domain.retire_all();
  EXPECT_EQ(domain.seats_taken(), 1u);
  EXPECT_EQ(crowd.torn(), 0u);
  if constexpr (!std::is_same_v<V, Item>) {
    EXPECT_EQ(blocks_in_use(queue), 0u);
  }

  std::uint64_t put = 0;
  std::uint64_t missing = 0;
  std::uint64_t phantom = 0;
  std::set<Item> lost;
  for (std::uint32_t id = 0; id < crowd.putters(); ++id) {
    const std::uint32_t count = accounts.acknowledged[id];
    put += count;
    for (std::uint32_t n = 0; n < kItemsEach; ++n) {
      const bool seen = accounts.is_seen(id, n);
      if (n < count && !seen) {
        ++missing;
        lost.insert(make_item(id, n));
      }
      // What a producer was putting when it was killed may be there or not.
      if (n >= count + mix.at_once && seen) ++phantom;
    }
  }
  // A consumer that was killed between the end of its get and its entry in
  // the accounts explains what it had in its hands, which it mostly could
  // still write down.
  std::uint64_t written_down = 0;
  for (std::uint32_t id = 0; id < crowd.getters(); ++id)
    for (const auto& item : accounts.returned[id])
      if (item != 0) written_down += lost.erase(item - 1);

  const std::uint64_t kills = crowd.putters_killed() + crowd.getters_killed();
  printf(
      "[  KILLS   ] %s: %lu producers and %lu consumers killed, %.0f/s; "
      "%lu puts, %lu gets, %lu missing (%lu of them noted by killed "
      "consumers), %lu duplicates, %lu phantoms, %lu out of order\n",
      mix.name, crowd.putters_killed(), crowd.getters_killed(),
      static_cast<double>(kills) / took, put, accounts.gets.load(), missing,
      written_down, accounts.duplicates.load(), phantom,
      accounts.out_of_order.load());
  RecordProperty("kills", static_cast<int>(kills));
  RecordProperty("kills_per_second",
                 static_cast<int>(static_cast<double>(kills) / took));
  RecordProperty("missing", static_cast<int>(missing));
  EXPECT_EQ(accounts.duplicates, 0u);
  EXPECT_EQ(phantom, 0u);
  const std::uint64_t explained = crowd.getters_killed() * mix.at_once;
  EXPECT_LE(missing, explained);
  // What is delivered again is late; nothing else is.
  EXPECT_LE(accounts.out_of_order, explained);
  EXPECT_GT(accounts.gets, mix.texts ? 300u : 1000u);
  EXPECT_GT(kills, 50u * static_cast<std::uint64_t>(took));
}

INSTANTIATE_TEST_SUITE_P(
    , QueueRandomKill,
    testing::Values(Mix{"Small", 8, 1, false, 20},
                    Mix{"LargeInBatches", 1000, 3, false, 8},
                    Mix{"Named", 8, 1, true, 8},
                    Mix{"Texts", 8, 1, false, 10, true},
                    Mix{"TextsGrowing", 0, 3, true, 10, true, 1 << 20},
                    Mix{"Growing", 0, 1, false, 8, false, 16384}),
    [](const testing::TestParamInfo<Mix>& info) {
      return std::string(info.param.name);
    });

}  // namespace
