#pragma once
// Passage and Arrival: how descriptors come along with the bytes of a Message,
// so that a handle in it works wherever it is received.
//
//   Deposits passage({descriptor, id});          // of the channel
//   codec::encode(Writer(memory, &passage), value);
//   ... publish ...
//   passage.sent();                              // else all is taken back
//
//   Arrival arrival;
//   codec::decode<T>(Reader(memory, &arrival));
//
// A message through a channel leaves descriptors with the keeper (keeper.h); a
// message to a process that is being started hands them over with the bytes
// (Outbox). A receiver that has the object mapped needs neither.
//
// Death: a handle is received once. Of the sender before sent(): keeper.h.

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "shoal/ipc/codec_traits.h"
#include "shoal/ipc/fd.h"
#include "shoal/ipc/keeper.h"
#include "shoal/ipc/object.h"

namespace shoal {

class Passage {
 public:
  virtual ~Passage() = default;
  Passage(const Passage&) = delete;
  Passage& operator=(const Passage&) = delete;

  // Fills in how the receiver gets it. Throws what keeper::deposit throws.
  virtual void carry(Object& object, HandleRef& reference) = 0;
  virtual void carry(int descriptor, HandleRef& reference) = 0;
  // The same for what has one living owner, its process's seat in the object's
  // domain: hand_over(who) names the new owner, and is told 0 when the message
  // was not sent.
  using HandOver = std::function<void(liveness::Who)>;
  virtual void carry_end(Object& object, int end, HandleRef& reference,
                         HandOver hand_over) = 0;

 protected:
  Passage() = default;
};

// Through a channel, by the keeper.
class Deposits final : public Passage {
 public:
  // Objects with a smaller serial number than `reached_before` are mapped by
  // all who may receive.
  explicit Deposits(keeper::Container container,
                    std::uint64_t reached_before = 0)
      : container_(container), reached_before_(reached_before) {}
  explicit Deposits(const Object& channel)
      : Deposits(keeper::Container{channel.descriptor(), channel.header().id}) {
  }
  ~Deposits() override;

  void carry(Object& object, HandleRef& reference) override;
  void carry(int descriptor, HandleRef& reference) override;
  void carry_end(Object& object, int end, HandleRef& reference,
                 HandOver hand_over) override;
  void sent() noexcept;

 private:
  struct Left {
    std::uint64_t keeper;
    std::uint64_t ticket;
    HandOver hand_over;
  };
  keeper::Deposit leave(liveness::Domain& domain, std::span<const int> all,
                        keeper::Contents contents, HandleRef& reference,
                        int end);

  keeper::Container container_;
  std::uint64_t reached_before_;
  std::vector<Left> left_;
};

// With the bytes, to a process that is being started.
class Outbox final : public Passage {
 public:
  void carry(Object& object, HandleRef& reference) override;
  void carry(int descriptor, HandleRef& reference) override;
  // Until the receiver has it, it lives as long as this process.
  void carry_end(Object& object, int end, HandleRef& reference,
                 HandOver hand_over) override;
  ~Outbox() override;

  // What to send, in this order. They stay whose they are.
  std::span<const int> descriptors() const { return descriptors_; }
  // The receiver has decoded the bytes; else all is taken back.
  void sent() { ends_.clear(); }

 private:
  void add(std::span<const int> all, HandleRef& reference);

  std::vector<int> descriptors_;
  std::vector<HandOver> ends_;
};

// The receiving side.
class Arrival {
 public:
  Arrival() = default;
  // What came with the bytes.
  explicit Arrival(std::vector<Fd> descriptors)
      : descriptors_(std::move(descriptors)) {}

  // The descriptors of `reference`. Throws Corrupt, Error.
  std::vector<Fd> take(const HandleRef& reference);
  // What was taken is in use; see keeper::Collected.
  void settled() { receipt_ = Fd(); }
  // Whether something was no longer there to be taken.
  bool lost() const { return lost_; }
  // Whether a handle among what was decoded cannot be decoded again.
  bool used_up() const { return used_up_; }
  void use_up() { used_up_ = true; }

 private:
  std::vector<Fd> descriptors_;
  Fd receipt_;
  bool lost_ = false;
  bool used_up_ = false;
};

namespace passage {

// The object that `reference` names: mapped already, or from what arrives.
// Throws Error when this process cannot reach it, TypeMismatch.
std::shared_ptr<Object> receive(const HandleRef& reference, Arrival* arrival,
                                const Spec& spec);

std::uint64_t type_of(Kind kind, std::uint64_t type_hash);

// Fills in object, type, domain; what carries it is the passage's.
HandleRef refer_to(const Object& object);

}  // namespace passage

// A descriptor that is duplicated into the receiver.
template <>
struct HandleTraits<Fd> {
  static HandleRef reference(const Fd& descriptor, Passage* passage);
  static Fd resolve(const HandleRef& reference, Arrival* arrival);
};

}  // namespace shoal
