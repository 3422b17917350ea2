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

namespace shoal {

template <class Entry>
class StaticList {
 public:
  constexpr StaticList() = default;

  template <class Match>
  const Entry* find(Match&& match) const {
    // SYNC(static_list.first)
    return find_from(first_.load(std::memory_order_acquire), match);
  }

  // `entry` is there for as long as the program. One that matches and was there
  // before; nullptr: none, and it is in.
  template <class Match>
  const Entry* add(Entry& entry, Match&& match) {
    // SYNC(static_list.first)
    const Entry* first = first_.load(std::memory_order_acquire);
    do {
      if (const Entry* const before = find_from(first, match)) return before;
      entry.next = first;
    } while (!first_.compare_exchange_weak(
        first, &entry, std::memory_order_release,  // SYNC(static_list.first)
        std::memory_order_acquire));               // SYNC(static_list.first)
    return nullptr;
  }

 private:
  template <class Match>
  static const Entry* find_from(const Entry* entry, Match&& match) {
    for (; entry != nullptr; entry = entry->next)
      if (match(*entry)) return entry;
    return nullptr;
  }

  std::atomic<const Entry*> first_{nullptr};
};

}  // namespace shoal
