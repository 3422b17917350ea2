#pragma once
// JobMemory: the memory of a ThreadPool's calls, used again and again. malloc
// gives what a batch freed back to the kernel, and the next one gets it page
// fault by page fault.
//
//   std::unique_ptr<JobMemory, JobMemory::LetGo> memory(new JobMemory);
//   auto job = std::allocate_shared<Job>(JobAllocator<Job>(*memory), 7);
//   memory.reset();  // it goes with the last job
//
// Sharing: any thread; nobody waits for another one.
// Cost:    four atomic operations to take a block, three to give it back; up
//          to kKept bytes stay until the pool and its last result have gone.

#include <array>
#include <atomic>
#include <cstddef>
#include <memory>
#include <new>
#include <utility>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace shoal::pool {

class JobMemory {
 public:
  static constexpr std::size_t kKept = std::size_t{32} << 20;
  static constexpr std::size_t kLargest = 1024;  // larger ones are malloc's

  JobMemory() = default;
  JobMemory(const JobMemory&) = delete;
  JobMemory& operator=(const JobMemory&) = delete;

  // Throws std::bad_alloc.
  void* allocate(std::size_t bytes) {
    void* const memory = bytes > kLargest ? ::operator new(bytes) : take(bytes);
    // relaxed: SYNC(job_memory.users): the caller is a user already.
    users_.fetch_add(1, std::memory_order_relaxed);
    return memory;
  }
  void free(void* memory, std::size_t bytes) noexcept {
    if (bytes > kLargest)
      ::operator delete(memory);
    else
      put_back(memory, bytes);
    let_go();
  }
  // For who made it.
  struct LetGo {
    void operator()(JobMemory* memory) const noexcept { memory->let_go(); }
  };

 private:
  static constexpr std::size_t kGrain = 64;
  struct Block {
    Block* next;
  };
  // The free blocks of one size: a stack that any thread pushes to, but only
  // one at a time pops from. The block that it sees on top stays there or
  // below, so that its `next` stays true: there is no ABA.
  struct alignas(64) Shelf {
    std::atomic<Block*> top{nullptr};
    std::atomic<bool> popping{false};
  };

  void let_go() noexcept {
    // acq_rel: SYNC(job_memory.users): the last one destroys what the others
    // have used.
    if (users_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }
  ~JobMemory() {
    for (std::size_t size = kGrain; Shelf & shelf : shelves_) {
      for (Block* block = shelf.top; block != nullptr;) {
        allow(block, size);
        ::operator delete(std::exchange(block, block->next));
      }
      size += kGrain;
    }
  }

  Shelf& shelf_of(std::size_t bytes) { return shelves_[(bytes - 1) / kGrain]; }
  static std::size_t rounded(std::size_t bytes) {
    return (bytes + kGrain - 1) / kGrain * kGrain;
  }

  // AddressSanitizer is told of blocks that nobody has.
  static void forbid([[maybe_unused]] Block* block,
                     [[maybe_unused]] std::size_t size) {
#if defined(__SANITIZE_ADDRESS__)
    __asan_poison_memory_region(block + 1, size - sizeof *block);
#endif
  }
  static void allow([[maybe_unused]] Block* block,
                    [[maybe_unused]] std::size_t size) {
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(block, size);
#endif
  }

  void* take(std::size_t bytes) {
    Shelf& shelf = shelf_of(bytes);
    // SYNC(job_memory.popping): who pops next sees what was popped.
    if (shelf.top.load(std::memory_order_relaxed) != nullptr &&
        !shelf.popping.exchange(true, std::memory_order_acquire)) {
      // acquire: SYNC(job_memory.top), its `next`; later pushes and pops are
      // of the same release sequence.
      Block* block = shelf.top.load(std::memory_order_acquire);
      while (block != nullptr &&
             !shelf.top.compare_exchange_weak(block, block->next,
                                              std::memory_order_acquire)) {
      }
      // SYNC(job_memory.popping)
      shelf.popping.store(false, std::memory_order_release);
      if (block != nullptr) {
        // relaxed: a number.
        kept_.fetch_sub(rounded(bytes), std::memory_order_relaxed);
        allow(block, rounded(bytes));
        return block;
      }
    }
    return ::operator new(rounded(bytes));
  }

  void put_back(void* memory, std::size_t bytes) noexcept {
    const std::size_t size = rounded(bytes);
    // relaxed: a number.
    if (kept_.fetch_add(size, std::memory_order_relaxed) + size > kKept) {
      kept_.fetch_sub(size, std::memory_order_relaxed);
      return ::operator delete(memory);
    }
    Shelf& shelf = shelf_of(bytes);
    Block* const block = ::new (memory) Block;
    forbid(block, size);
    block->next = shelf.top.load(std::memory_order_relaxed);
    // SYNC(job_memory.top)
    while (!shelf.top.compare_exchange_weak(block->next, block,
                                            std::memory_order_release,
                                            std::memory_order_relaxed)) {
    }
  }

  std::array<Shelf, kLargest / kGrain> shelves_;
  alignas(64) std::atomic<std::size_t> kept_{0};  // bytes
  // Its maker, and blocks in use.
  alignas(64) std::atomic<std::size_t> users_{1};
};

// For std::allocate_shared.
template <class T>
class JobAllocator {
 public:
  using value_type = T;
  explicit JobAllocator(JobMemory& memory) : memory_(&memory) {}
  template <class U>
  JobAllocator(const JobAllocator<U>& other)  // NOLINT: as allocators are
      : memory_(other.memory_) {}

  T* allocate(std::size_t count) {
    if constexpr (kAligned)
      return std::allocator<T>().allocate(count);
    else
      return static_cast<T*>(memory_->allocate(count * sizeof(T)));
  }
  void deallocate(T* job, std::size_t count) noexcept {
    if constexpr (kAligned)
      std::allocator<T>().deallocate(job, count);
    else
      memory_->free(job, count * sizeof(T));
  }
  template <class U>
  bool operator==(const JobAllocator<U>& other) const {
    return memory_ == other.memory_;
  }

 private:
  template <class U>
  friend class JobAllocator;
  static constexpr bool kAligned =
      alignof(T) > __STDCPP_DEFAULT_NEW_ALIGNMENT__;
  JobMemory* memory_;
};

}  // namespace shoal::pool
