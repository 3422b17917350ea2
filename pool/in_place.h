#pragma once
// Elements of an Array that workers change in place: for_each.

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <stdexcept>
#include <type_traits>
#include <utility>

#include "shoal/ipc/codec.h"
#include "shoal/ipc/handle.h"
#include "shoal/ipc/object.h"
#include "shoal/ipc/type_name.h"
#include "shoal/pool/call.h"
#include "shoal/pool/core.h"
#include "shoal/pool/submission.h"
#include "shoal/pool/tasks.h"
#include "shoal/shared/array.h"
#include "shoal/shared/shape.h"

namespace shoal::pool {

// Which elements of which Array.
template <class T>
struct Elements {
  Array<T> array;
  std::uint64_t first = 0;
  std::uint64_t count = 0;
  std::uint64_t step = 1;
};

// Those of an Array that this process has mapped there. Throws
// std::invalid_argument for other memory, std::logic_error for what is mapped
// read-only.
template <class T>
Elements<T> elements_at(T* data, std::size_t count, std::size_t step) {
  static_assert(!std::is_const_v<T>,
                "shoal: for_each changes elements, which are const here");
  auto object = Object::find_at(data);
  if (object == nullptr || object->header().type_hash != layout_hash<T>())
    throw std::invalid_argument(
        "shoal: for_each of memory that lies in no Array of " + type_name<T>() +
        "; give an Array, or its span, row, slice or column");
  static_cast<void>(object->domain());  // throws when it is read-only
  auto array = HandleAccess::make<Array<T>>(std::move(object));
  const auto first = static_cast<std::uint64_t>(data - array.data());
  return {std::move(array), first, count, step};
}

template <class T>
Elements<T> elements_of(const Array<T>& array) {
  if (const auto& object = HandleAccess::object(array); object != nullptr)
    static_cast<void>(object->domain());
  return {array, 0, array.size(), 1};
}
template <class T>
Elements<T> elements_of(std::span<T> span) {
  if (span.empty()) return {Array<T>(0), 0, 0, 1};
  return elements_at(span.data(), span.size(), 1);
}
template <class T>
Elements<T> elements_of(const Strided<T>& column) {
  if (column.empty()) return {Array<T>(0), 0, 0, 1};
  const auto step =
      column.size() == 1 ? 1 : &*(column.begin() + 1) - &*column.begin();
  return elements_at(&*column.begin(), column.size(),
                     static_cast<std::size_t>(step));
}

template <class F, class T>
consteval bool require_in_place() {
  static_assert(std::invocable<F&, T&>,
                "shoal: for_each calls the function with an element, a T&, and "
                "nothing else.");
  return true;
}

template <class F, class T>
void run_in_place(codec::Reader& reader, call::Reply& reply) {
  F f = call::decode_callable<F>(reader);
  auto array = codec::decode<Array<T>>(reader);
  const auto first = reader.read<std::uint64_t>();
  const auto count = reader.read<std::uint64_t>();
  const auto step = reader.read<std::uint64_t>();
  reader.finish();
  if (first >= array.size() || step > array.size() ||
      (count != 0 &&
       (array.size() - 1 - first) / std::max<std::uint64_t>(step, 1) <
           count - 1))
    throw Corrupt("shoal: a task is to change elements that its Array has not");
  T* const data = array.data() + first;
  if (step == 1)  // vectorises
    for (std::uint64_t n = 0; n < count; ++n) std::invoke(f, data[n]);
  else
    for (std::uint64_t n = 0; n < count; ++n) std::invoke(f, data[n * step]);
  reply.allocate(0);
}

// Submits them in chunks.
template <class F, class T>
void submit_in_place(Core& core, const F& f, const Elements<T>& elements,
                     std::ptrdiff_t chunksize, Tasks& tasks) {
  constexpr call::Thunk kThunk = &run_in_place<F, T>;
  const std::size_t size =
      chunk_size("Pool", "for_each", core.workers(), elements.count, chunksize);
  tasks.add_all((elements.count + size - 1) / size, true, [&](std::size_t n) {
    const std::size_t done = n * size;
    const std::uint64_t first = elements.first + done * elements.step;
    const std::uint64_t count = std::min(size, elements.count - done);
    return submit<true>(core, "for_each", call::thunk_reference<kThunk>(),
                        call::callable_size(f) + codec::size(elements.array) +
                            3 * sizeof(std::uint64_t),
                        [&](codec::Writer& writer) {
                          call::encode_callable(writer, f);
                          codec::encode(writer, elements.array);
                          writer.write(first);
                          writer.write(count);
                          writer.write(elements.step);
                        });
  });
}

}  // namespace shoal::pool
