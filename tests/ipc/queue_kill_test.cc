// SIGKILL at every instruction of a queue's operations, without partners.

#include <array>
#include <vector>

#include "gtest/gtest.h"
#include "tests/ipc/queue_scene.h"

namespace {

using namespace shoal::support;
using shoal::Queue;

struct Start {
  std::size_t queued;
  int turned;  // values that have gone through before
};
std::string name_of(const testing::TestParamInfo<Start>& info) {
  return std::to_string(info.param.queued) + "Queued" +
         (info.param.turned == 0 ? "" : "LaterLap");
}

class QueueKill : public testing::TestWithParam<Start> {
 protected:
  void SetUp() override {
    use_one_processor();
    shoal::waiting::set_slices(false);
  }
  // 1, 2, ... in the queue
  Items queued() const {
    Items items;
    for (Item i = 1; i <= GetParam().queued; ++i) items.push_back(i);
    return items;
  }
  Items rest() const {  // without the first
    Items items = queued();
    items.erase(items.begin());
    return items;
  }
  Scene scene() const { return Scene(queued(), GetParam().turned); }

  // `operation` puts 7 at most once.
  void kill_in_put(std::string_view sane,
                   const std::function<void(Queue<Item>&)>& operation) {
    kill_at_every_step(sane, [&](Round& round) {
      Scene scene = this->scene();
      Victim victim([&] { operation(scene.queue); }, scene.join_for_leases());
      round.step(victim);
      round.kill(victim);
      const Items items = scene.drain();
      round.expect_none(exactly(items, queued(), {7}));
      round.expect(std::is_sorted(items.begin(), items.end()), "order");
      round.outcome(items.size() == queued().size() ? 'A' : 'P');
      round.expect_none(scene.whole());
    });
  }
  // `operation` gets the first at most once.
  void kill_in_get(std::string_view sane,
                   const std::function<void(Queue<Item>&)>& operation) {
    kill_at_every_step(sane, [&](Round& round) {
      Scene scene = this->scene();
      Victim victim([&] { operation(scene.queue); }, scene.join_for_leases());
      round.step(victim);
      round.kill(victim);
      const Items items = scene.drain();
      round.expect_none(exactly(items, rest(), {1}));
      round.outcome(items.size() == queued().size() ? 'R' : 'C');
      round.expect_none(scene.whole());
    });
  }
};

// ---- put: absent, then present ----

using QueueKillPut = QueueKill;

TEST_P(QueueKillPut, Put) {
  kill_in_put("AP", [](Queue<Item>& queue) { queue.put(7); });
}

TEST_P(QueueKillPut, TryPut) {
  kill_in_put("AP", [](Queue<Item>& queue) { (void)queue.try_put(7); });
}

INSTANTIATE_TEST_SUITE_P(, QueueKillPut,
                         testing::Values(Start{0, 0}, Start{2, 0}, Start{3, 0},
                                         Start{0, 6}, Start{3, 7}),
                         name_of);

using QueueKillLoan = QueueKill;

TEST_P(QueueKillLoan, LoanPublish) {
  kill_in_put("AP", [](Queue<Item>& queue) {
    auto loan = queue.loan();
    *loan = 7;
    loan.publish();
  });
}

TEST_P(QueueKillLoan, LoanDrop) {
  kill_in_put("A", [](Queue<Item>& queue) { *queue.loan() = 7; });
}

INSTANTIATE_TEST_SUITE_P(, QueueKillLoan,
                         testing::Values(Start{0, 0}, Start{3, 7}), name_of);

// ---- get: redelivered, then committed ----

using QueueKillGet = QueueKill;

TEST_P(QueueKillGet, Get) {
  kill_in_get("RC", [](Queue<Item>& queue) { (void)queue.get(); });
}

TEST_P(QueueKillGet, TryGet) {
  kill_in_get("RC", [](Queue<Item>& queue) { (void)queue.try_get(); });
}

INSTANTIATE_TEST_SUITE_P(, QueueKillGet,
                         testing::Values(Start{1, 0}, Start{2, 0}, Start{4, 0},
                                         Start{2, 7}, Start{4, 7}),
                         name_of);

using QueueKillTake = QueueKill;

TEST_P(QueueKillTake, TakeRelease) {
  kill_in_get("RC", [](Queue<Item>& queue) { (void)*queue.take(); });
}

INSTANTIATE_TEST_SUITE_P(, QueueKillTake,
                         testing::Values(Start{1, 0}, Start{4, 7}), name_of);

// ---- nothing to do ----

using QueueKillFull = QueueKill;

TEST_P(QueueKillFull, TryPut) {
  kill_in_put("A", [](Queue<Item>& queue) { (void)queue.try_put(7); });
}
INSTANTIATE_TEST_SUITE_P(, QueueKillFull,
                         testing::Values(Start{4, 0}, Start{4, 7}), name_of);

using QueueKillEmpty = QueueKill;

TEST_P(QueueKillEmpty, TryGet) {
  kill_in_put("A", [](Queue<Item>& queue) { (void)queue.try_get(); });
}
INSTANTIATE_TEST_SUITE_P(, QueueKillEmpty,
                         testing::Values(Start{0, 0}, Start{0, 7}), name_of);

// ---- several at once: a prefix, one more at a time ----

using QueueKillPutMany = QueueKill;

TEST_P(QueueKillPutMany, Three) {
  const std::array<Item, 3> values = {11, 12, 13};
  const std::size_t fit = std::min(3 * 1ul, kCapacity - GetParam().queued);
  kill_at_every_step(std::string("0123").substr(0, fit + 1), [&](Round& round) {
    Scene scene = this->scene();
    Victim victim([&] { scene.queue.put_many(values); }, scene.join());
    round.step(victim);
    round.kill(victim);
    const Items items = scene.drain();
    Items expected = queued();
    const std::size_t done = items.size() - expected.size();
    round.outcome(static_cast<char>('0' + done));
    round.expect(done <= fit, "more than fit");
    expected.insert(expected.end(), values.begin(),
                    values.begin() + std::min(done, values.size()));
    round.expect(items == expected, "not a prefix in order");
    round.expect_none(scene.whole());
  });
}

INSTANTIATE_TEST_SUITE_P(, QueueKillPutMany,
                         testing::Values(Start{0, 0}, Start{2, 0}, Start{1, 6}),
                         name_of);

using QueueKillGetMany = QueueKill;

TEST_P(QueueKillGetMany, Three) {
  const std::size_t wanted = std::min(3 * 1ul, GetParam().queued);
  kill_at_every_step(
      std::string("0123").substr(0, wanted + 1), [&](Round& round) {
        Scene scene = this->scene();
        Victim victim(
            [&] {
              std::array<Item, 3> values;
              scene.queue.get_many(values);
            },
            scene.join());
        round.step(victim);
        round.kill(victim);
        const Items items = scene.drain();
        const std::size_t gone = queued().size() - items.size();
        round.outcome(static_cast<char>('0' + gone));
        round.expect(gone <= wanted, "more gone than asked for");
        Items expected = queued();
        expected.erase(expected.begin(),
                       expected.begin() + std::min(gone, expected.size()));
        round.expect_none(exactly(items, expected, {}));
        round.expect_none(scene.whole());
      });
}

INSTANTIATE_TEST_SUITE_P(, QueueKillGetMany,
                         testing::Values(Start{4, 0}, Start{2, 0}, Start{4, 7}),
                         name_of);

// ---- stopped at k, overtaken, then killed or let go ----

class QueuePause : public QueueKill {
 protected:
  // What the survivor did while the victim stood still.
  struct Overtaking {
    Items got;
    bool put;
  };
  static Overtaking overtake(Queue<Item>& queue) {
    Overtaking done;
    if (const auto item = queue.try_get()) done.got.push_back(*item);
    done.put = queue.try_put(8);
    return done;
  }

  void pause_in_put(bool resume) {
    kill_at_every_step("AP", [&](Round& round) {
      Scene scene = this->scene();
      Victim victim([&] { scene.queue.put(7); }, scene.join());
      round.step(victim);
      const Overtaking survivor = overtake(scene.queue);
      // Queued() + 7 + 8 fit, since one may have been taken at least when
      // three were there.
      round.expect(survivor.put, "put refused");
      if (resume && round.stop() == Stop::at_step)
        round.expect(victim.resume(), "stuck after it was let go");
      round.kill(victim);
      Items items = survivor.got;
      for (const Item item : scene.drain()) items.push_back(item);
      Items must = queued();
      must.push_back(8);
      const bool done = std::ranges::count(items, 7) != 0;
      if (resume) must.push_back(7);
      round.expect_none(exactly(items, must, {7}));
      round.outcome(!resume && done ? 'P' : 'A');
      if (resume) round.outcome(round.stop() == Stop::at_step ? 'A' : 'P');
      round.expect_none(scene.whole());
    });
  }

  void pause_in_get(bool resume) {
    kill_at_every_step(resume ? "AP" : "RC", [&](Round& round) {
      Scene scene = this->scene();
      Shared<std::atomic<Item>> taken;
      Victim victim(
          [&] {
            if (const auto item = scene.queue.try_get()) *taken = *item;
          },
          scene.join());
      round.step(victim);
      const Overtaking survivor = overtake(scene.queue);
      if (resume && round.stop() == Stop::at_step)
        round.expect(victim.resume(), "stuck after it was let go");
      round.kill(victim);
      Items items = survivor.got;
      for (const Item item : scene.drain()) items.push_back(item);
      const Item theirs = *taken;
      const bool ended = resume || round.stop() == Stop::finished;
      if (ended && theirs != 0) items.push_back(theirs);
      Items all = queued();
      if (survivor.put) all.push_back(8);
      if (ended) {
        round.expect_none(exactly(items, all, {}));
      } else {
        // At most the one that it has taken is gone.
        round.expect_none(exactly(items, {}, all));
        round.expect(items.size() + 1 >= all.size(), "more than one is gone");
      }
      if (resume)
        round.outcome(round.stop() == Stop::at_step ? 'A' : 'P');
      else
        round.outcome(items.size() == all.size() ? 'R' : 'C');
      if (!resume && ended) round.outcome('C');
      round.expect_none(scene.whole());
    });
  }
};

using QueuePausePut = QueuePause;
TEST_P(QueuePausePut, ThenKilled) { pause_in_put(false); }
TEST_P(QueuePausePut, ThenResumed) { pause_in_put(true); }
INSTANTIATE_TEST_SUITE_P(, QueuePausePut,
                         testing::Values(Start{0, 0}, Start{1, 0}, Start{2, 0},
                                         Start{3, 7}),
                         name_of);

using QueuePauseGet = QueuePause;
TEST_P(QueuePauseGet, ThenKilled) { pause_in_get(false); }
TEST_P(QueuePauseGet, ThenResumed) { pause_in_get(true); }
INSTANTIATE_TEST_SUITE_P(, QueuePauseGet,
                         testing::Values(Start{1, 0}, Start{2, 0}, Start{3, 0},
                                         Start{4, 7}),
                         name_of);

}  // namespace
