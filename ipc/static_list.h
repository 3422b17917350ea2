#pragma once
// StaticList: what static objects of the program register for good, each a
// link of the list itself.
//
//   struct Entry { int key; const Entry* next = nullptr; };
//   constinit StaticList<Entry> entries;
//   if (entries.add(mine, same_key) == nullptr) ...            // it is in
//
// Sharing: any thread, also before main().

#include <atomic>
#include <mutex>

namespace shoal {

template <class Entry>
class StaticList {
 public:
  constexpr StaticList() = default;

  template <class Match>
  const Entry* find(Match&& match) const {
    // SYNC(static_list.first)
    for (const Entry* entry = first_.load(std::memory_order_acquire);
         entry != nullptr; entry = entry->next)
      if (match(*entry)) return entry;
    return nullptr;
  }

  // `entry` is there for as long as the program. One that matches and was there
  // before; nullptr: none, and it is in.
  template <class Match>
  const Entry* add(Entry& entry, Match&& match) {
    const std::lock_guard lock(mutex_);
    if (const Entry* const before = find(match)) return before;
    // relaxed: under the lock.
    entry.next = first_.load(std::memory_order_relaxed);
    // SYNC(static_list.first)
    first_.store(&entry, std::memory_order_release);
    return nullptr;
  }

 private:
  std::mutex mutex_;
  std::atomic<const Entry*> first_{nullptr};
};

}  // namespace shoal
