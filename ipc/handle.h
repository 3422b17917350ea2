#pragma once
// How a handle (Queue, Lock, Value, Array) travels in a Message: as a
// reference to the object, which the receiver must have mapped, by fork.

#include <memory>
#include <string>
#include <utility>

#include "shoal/ipc/errors.h"
#include "shoal/ipc/message.h"
#include "shoal/ipc/object.h"

namespace shoal {

// Befriended by the handles.
struct HandleAccess {
  template <class H>
  static const std::shared_ptr<Object>& object(const H& handle) {
    return handle.object_;
  }
  template <class H>
  static H make(std::shared_ptr<Object> object) {
    return H(std::move(object));
  }
  template <class H>
  static Spec spec() {
    return H::object_spec();
  }
};

// The base of every HandleTraits<H>.
template <class H>
struct ObjectHandleTraits {
  static HandleRef reference(const H& handle) {
    const auto& object = HandleAccess::object(handle);
    if (object == nullptr)
      throw Closed("shoal: a handle that was moved from cannot be sent");
    return {.segment = object->header().id,
            .offset = 0,
            .type = type_of(object->header().kind, object->header().type_hash),
            .created = object->serial()};
  }

  // Throws Error when this process has not mapped the object.
  static H resolve(const HandleRef& reference) {
    auto object = Object::find(reference.segment);
    if (object == nullptr)
      throw Error(
          "shoal: this process cannot reach the object that a message refers "
          "to: it was made after this process was forked; make it before");
    const Spec wanted = HandleAccess::spec<H>();
    if (reference.type != type_of(wanted.kind, wanted.type_hash) ||
        object->header().kind != wanted.kind ||
        object->header().type_hash != wanted.type_hash)
      throw TypeMismatch(
          "shoal: a message refers to an object of another "
          "type than " +
          wanted.type_text);
    return HandleAccess::make<H>(std::move(object));
  }

 private:
  static std::uint64_t type_of(Kind kind, std::uint64_t hash) {
    return hash ^ static_cast<std::uint64_t>(kind) << 56;
  }
};

}  // namespace shoal
