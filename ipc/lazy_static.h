#pragma once
// LazyStatic: a static object that is made when it is first asked for, and
// never destroyed.
//
//   constinit LazyStatic<Registry> registry;
//   registry.get().add(this);
//
// In place of a local static: who is forked while another thread makes one of
// those waits for that thread for ever. Here nobody waits; of two that are made
// at the same time one is deleted unused.
//
// Sharing: any thread, also before main().

#include <atomic>
#include <memory>

namespace shoal {

template <class T>
class LazyStatic {
 public:
  constexpr LazyStatic() = default;
  LazyStatic(const LazyStatic&) = delete;
  LazyStatic& operator=(const LazyStatic&) = delete;

  T& get() {
    return get([] { return std::make_unique<T>(); });
  }
  // make(): a std::unique_ptr<T>; what it throws comes out, and the next who
  // comes tries again.
  template <class Make>
  T& get(Make&& make) {
    // SYNC(lazy_static)
    if (T* const made = made_.load(std::memory_order_acquire)) return *made;
    std::unique_ptr<T> mine = make();
    T* first = nullptr;
    if (made_.compare_exchange_strong(
            first, mine.get(), std::memory_order_release,  // SYNC(lazy_static)
            std::memory_order_acquire))                    // SYNC(lazy_static)
      return *mine.release();
    return *first;
  }

 private:
  std::atomic<T*> made_{nullptr};
};

}  // namespace shoal
