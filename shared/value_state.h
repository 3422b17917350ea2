#pragma once
// How a Value<T> lies in shared memory, and how it is read and written.
//
// AtomicStore: T in a std::atomic. BufferStore: four buffers and a version;
// the value of version v lies in buffer v mod 4. A writer, alone by the lock,
// fills the next buffer and then publishes it by the version. A reader copies
// the buffer of the version that it saw, and has a whole value unless three
// versions came meanwhile; it never waits for a writer.
//
// Source: seqlock with the ordering of Boehm, "Can seqlocks get along with
//         programming language memory models?" (MSPC 2012), over a ring of
//         buffers instead of one.
// Death:  a writer killed before the version store leaves the old value,
//         after it the new one.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "shoal/ipc/robust_lock.h"

namespace shoal {

// Types for which the compiler's atomics never need a lock.
template <class T>
concept LockFreeValue = std::is_trivially_copyable_v<T> && sizeof(T) <= 8 &&
                        (sizeof(T) & (sizeof(T) - 1)) == 0 &&
                        std::atomic<T>::is_always_lock_free;

template <class T>
struct AtomicStoreState {
  LockState lock;
  alignas(64) std::atomic<T> value;  // any writer
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
};

template <class T>
class AtomicStore {
 public:
  using State = AtomicStoreState<T>;
  static void initialise(State& state, const T& value) {
    // relaxed: nobody else sees the object yet.
    state.value.store(value, std::memory_order_relaxed);
  }
  // SYNC(value.atomic)
  static T load(const State& state) {
    return state.value.load(std::memory_order_seq_cst);
  }
  // seq_cst throughout, as std::atomic's default: a Value is used as a flag.
  // KILL: one store; before it the old value, after it the new one.
  static void store(State& state, const T& value) {
    state.value.store(value, std::memory_order_seq_cst);
  }
};

template <class T>
class BufferStore {
 public:
  using State = BufferStoreState<T>;
  static_assert(std::is_standard_layout_v<State>);

  static void initialise(State& state, const T& value) { write(state, 0, value); }

  static T load(const State& state) {
    union Slot {
      Slot() {}
      T value;
    } slot;
    for (;;) {
      // SYNC(value.version)
      const std::uint64_t version =
          state.version.load(std::memory_order_acquire);
      const auto& words = state.buffers[version % State::kBuffers].words;
      std::uint64_t copy[State::kWords];
      for (std::size_t i = 0; i < State::kWords; ++i)
        // SYNC(value.words): a word of a later version brings that version.
        copy[i] = words[i].load(std::memory_order_acquire);
      // relaxed: ordered by the acquire loads before it.
      const std::uint64_t after =
          state.version.load(std::memory_order_relaxed);
      if (__builtin_expect(after - version > State::kBuffers - 2, 0)) continue;
      std::memcpy(static_cast<void*>(&slot.value), copy, sizeof(T));
      return slot.value;
    }
  }

  // By the holder of the lock.
  static void store(State& state, const T& value) {
    // relaxed: only holders write it.
    const std::uint64_t next =
        state.version.load(std::memory_order_relaxed) + 1;
    write(state, next, value);
    // SYNC(value.version)
    // KILL: before it the old value, after it the new one.
    state.version.store(next, std::memory_order_release);
  }

 private:
  static void write(State& state, std::uint64_t version, const T& value) {
    std::uint64_t copy[State::kWords] = {};
    std::memcpy(copy, &value, sizeof(T));
    auto& words = state.buffers[version % State::kBuffers].words;
    for (std::size_t i = 0; i < State::kWords; ++i)
      // SYNC(value.words): after the version that made this buffer free.
      // KILL: a buffer that no reader of the current version looks at.
      words[i].store(copy[i], std::memory_order_release);
  }
};

template <class T>
using ValueStore =
    std::conditional_t<LockFreeValue<T>, AtomicStore<T>, BufferStore<T>>;

}  // namespace shoal
