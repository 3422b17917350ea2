#pragma once
// How a Value<T> lies in shared memory, and how it is read and written.
//
// AtomicStore: the bytes of T in one std::atomic word, so that what is compared
// is what was there, padding included. BufferStore: four buffers and a version;
// the value of version v lies in buffer v mod 4 (v counts in steps, so that it
// names the buffer's place where that is a power of two). A writer, alone by
// the lock, fills the next buffer and then publishes it by the version. A
// reader copies the buffer of the version that it saw, and has a whole value
// unless three versions came meanwhile; it never waits for a writer.
//
// Source: seqlock with the ordering of Boehm, "Can seqlocks get along with
//         programming language memory models?" (MSPC 2012), over a ring of
//         buffers instead of one.
// Death:  a writer killed before the version store leaves the old value,
//         after it the new one.

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "shoal/ipc/robust_lock.h"
#include "shoal/shared/wide_copy.h"

namespace shoal {

// Types for which the compiler's atomics never need a lock. (std::atomic<T>
// says the same, but not for a T with const members.)
template <class T>
concept LockFreeValue = std::is_trivially_copyable_v<T> && sizeof(T) <= 8 &&
                        __atomic_always_lock_free(sizeof(T), nullptr);

// g++ can; for clang 14 two equal values may differ in their padding.
template <class T>
void clear_padding([[maybe_unused]] T& value) {
#if __has_builtin(__builtin_clear_padding)
  __builtin_clear_padding(&value);
#endif
}

template <class T>
struct AtomicStoreState {
  using Bits = std::conditional_t<
      sizeof(T) == 1, std::uint8_t,
      std::conditional_t<
          sizeof(T) == 2, std::uint16_t,
          std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>>>;
  LockState lock;
  alignas(64) std::atomic<Bits> value;  // any writer
};

template <class T>
struct BufferStoreState {
  static constexpr std::size_t kWords = (sizeof(T) + 7) / 8;
  static constexpr std::uint64_t kBuffers = 4;

  LockState lock;
  alignas(64) std::atomic<std::uint64_t> version;  // the holder of `lock`
  struct alignas(64) Buffer {
    std::atomic<std::uint64_t> words[kWords];  // the holder of `lock`
  };
  Buffer buffers[kBuffers];
  static constexpr std::uint64_t kStep =
      std::has_single_bit(sizeof(Buffer)) ? sizeof(Buffer) : 1;

  static constexpr std::size_t index_of(std::uint64_t version) {
    return version / kStep % kBuffers;
  }
};

// seq_cst throughout, as std::atomic's default: a Value is used as a flag.
template <class T>
class AtomicStore {
 public:
  using State = AtomicStoreState<T>;
  using Bits = typename State::Bits;
  using Seen = Bits;  // what replace() expects to find

  static Bits to_bits(T value) {
    shoal::clear_padding(value);
    Bits bits;  // g++ 12 crashes on bit_cast from an empty class
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
  }
  static T from_bits(Bits bits) { return std::bit_cast<T>(bits); }

  static void initialise(State& state, const T& value) {
    // relaxed: nobody else sees the object yet.
    state.value.store(to_bits(value), std::memory_order_relaxed);
  }
  // SYNC(value.atomic)
  static T load(const State& state, Seen& seen) {
    seen = state.value.load(std::memory_order_seq_cst);
    return from_bits(seen);
  }
  static T load(const State& state) {
    Seen seen;
    return load(state, seen);
  }
  // SYNC(value.atomic)
  // KILL: one store; before it the old value, after it the new one. The same
  // for all that follow.
  static void store(State& state, const T& value) {
    state.value.store(to_bits(value), std::memory_order_seq_cst);
  }
  // False when something else than `seen` is there; then `seen` is that.
  static bool replace(State& state, Seen& seen, const T& value) {
    return state.value.compare_exchange_strong(seen, to_bits(value),
                                               std::memory_order_seq_cst);
  }
  // A T like `expected` may be there with other bytes in its padding.
  static bool compare_exchange(State& state, T& expected, const T& desired) {
    const Bits wanted = to_bits(expected);
    Seen seen = wanted;
    while (!replace(state, seen, desired)) {
      if (to_bits(from_bits(seen)) == wanted) continue;
      std::memcpy(static_cast<void*>(&expected), &seen, sizeof(T));
      return false;
    }
    return true;
  }
  // These return the value before.
  static T exchange(State& state, const T& value) {
    return from_bits(
        state.value.exchange(to_bits(value), std::memory_order_seq_cst));
  }
  static T fetch_add(State& state, T amount) {
    if constexpr (std::is_integral_v<T>) {
      return from_bits(
          state.value.fetch_add(to_bits(amount), std::memory_order_seq_cst));
    } else {
      Seen seen;
      T before = load(state, seen);
      while (!replace(state, seen, before + amount)) before = from_bits(seen);
      return before;
    }
  }
  static T fetch_sub(State& state, T amount) {
    if constexpr (std::is_integral_v<T>)
      return from_bits(
          state.value.fetch_sub(to_bits(amount), std::memory_order_seq_cst));
    else
      return fetch_add(state, -amount);
  }
};

// Copies that may race with a writer, or with readers, who then throw away what
// they have. On machines of today an aligned word is read and written as one,
// and a fence orders all of a plain copy: as fast as memcpy, where a loop over
// atomics is ten times slower. What thread sanitizers see is atomics.
namespace value_words {

using Word = std::atomic<std::uint64_t>;

#if defined(__SANITIZE_THREAD__)
#define SHOAL_WORDS_ARE_ATOMICS 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SHOAL_WORDS_ARE_ATOMICS 1
#endif
#endif

#if defined(SHOAL_WORDS_ARE_ATOMICS)
// f(index, byte offset, how many bytes).
template <class F>
void for_each(std::size_t size, F&& f) {
  for (std::size_t at = 0; at < size; at += 8)
    f(at / 8, at, size - at < 8 ? size - at : 8);
}
#endif

// What is read of the words afterwards comes after them.
template <std::size_t kSize>
void read(void* to, const Word* words) {
#if defined(SHOAL_WORDS_ARE_ATOMICS)
  for_each(kSize, [&](std::size_t i, std::size_t at, std::size_t n) {
    const std::uint64_t word = words[i].load(std::memory_order_acquire);
    std::memcpy(static_cast<std::byte*>(to) + at, &word, n);
  });
#else
  // SYNC(value.words): a word of a later version brings that version.
  wide_copy<kSize>(to, words);
  std::atomic_thread_fence(std::memory_order_acquire);
#endif
}

// What was written before comes before them.
inline void write(Word* words, const void* from, std::size_t size) {
#if defined(SHOAL_WORDS_ARE_ATOMICS)
  for_each(size, [&](std::size_t i, std::size_t at, std::size_t n) {
    std::uint64_t word = 0;
    std::memcpy(&word, static_cast<const std::byte*>(from) + at, n);
    words[i].store(word, std::memory_order_release);
  });
#else
  // SYNC(value.words): after the version that made this buffer free.
  std::atomic_thread_fence(std::memory_order_release);
  std::memcpy(static_cast<void*>(words), from, size);
#endif
}

}  // namespace value_words

template <class T>
class BufferStore {
 public:
  using State = BufferStoreState<T>;
  struct Seen {};  // the lock keeps others out
  static_assert(std::is_standard_layout_v<State>);

  static void initialise(State& state, const T& value) {
    write(state, 0, value);
  }

  // One copy: g++ 12 elides the second only of a variable in the outermost
  // scope of its function.
  static T load(const State& state) requires
      std::is_trivially_default_constructible_v<T> {
    T value;
    copy_out(state, &value);
    return value;
  }
  static T load(const State& state) {
    union Slot {
      Slot() {}
      T value;
    } slot;
    copy_out(state, &slot.value);
    return slot.value;
  }
  static T load(const State& state, Seen&) { return load(state); }

  // By the holder of the lock.
  static void store(State& state, const T& value) {
    // relaxed: only holders write it.
    const std::uint64_t next =
        state.version.load(std::memory_order_relaxed) + State::kStep;
    write(state, next, value);
    // SYNC(value.version)
    // KILL: before it the old value, after it the new one.
    state.version.store(next, std::memory_order_release);
  }
  static bool replace(State& state, Seen&, const T& value) {
    store(state, value);
    return true;
  }

 private:
  static void copy_out(const State& state, void* to) {
    for (;;) {
      // SYNC(value.version)
      const std::uint64_t version =
          state.version.load(std::memory_order_acquire);
      value_words::read<sizeof(T)>(
          to, state.buffers[State::index_of(version)].words);
      // relaxed: after the words, of which one of a later version brings that.
      const std::uint64_t after = state.version.load(std::memory_order_relaxed);
      if (__builtin_expect(after == version, 1)) return;
      if (after - version <= (State::kBuffers - 2) * State::kStep) return;
    }
  }
  static void write(State& state, std::uint64_t version, const T& value) {
    // KILL: a buffer that no reader of the current version looks at.
    value_words::write(state.buffers[State::index_of(version)].words, &value,
                       sizeof(T));
  }
};

template <class T>
using ValueStore =
    std::conditional_t<LockFreeValue<T>, AtomicStore<T>, BufferStore<T>>;

}  // namespace shoal
