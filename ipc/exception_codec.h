#pragma once
// Exceptions as messages: the standard ones, shoal's own and those declared by
// SHOAL_EXCEPTION keep their type, every other arrives as RemoteError with its
// type's name, its text and, where throw_trace knows it, where it was thrown.
// What is nested in one (std::throw_with_nested) is nested in it there, too.
//
//   std::vector<std::byte> bytes = exception_codec::encode(
//       std::current_exception());
//   std::rethrow_exception(exception_codec::decode(bytes));
//
// A type that is only derived from a known one is RemoteError, too: catching
// it by its base here would lose what it adds without a word.

#include <cstddef>
#include <exception>
#include <span>
#include <vector>

#include "shoal/ipc/exception_registry.h"

namespace shoal::exception_codec {

// For the process that calls it.
std::vector<std::byte> encode(std::exception_ptr error);

// Never throws for what the bytes hold: bytes that no encode() writes give a
// Corrupt.
std::exception_ptr decode(std::span<const std::byte> bytes);

}  // namespace shoal::exception_codec
