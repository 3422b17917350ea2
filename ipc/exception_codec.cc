#include "shoal/ipc/exception_codec.h"

#include <cxxabi.h>
#include <unistd.h>

#include <algorithm>
#include <any>
#include <array>
#include <charconv>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <future>
#include <ios>
#include <memory>
#include <new>
#include <optional>
#include <regex>
#include <string>
#include <string_view>
#include <system_error>
#include <typeinfo>
#include <variant>

#include "shoal/ipc/codec.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/exception_registry.h"
#include "shoal/ipc/static_list.h"
#include "shoal/ipc/throw_trace.h"

namespace shoal::exception_codec {
namespace {

struct Wire {
  std::uint32_t type = 0;  // place in kTypes + 1; 0: another type
  std::string type_name;
  std::string message;
  std::int64_t pid = 0;
  std::int64_t code = 0;  // of system_error
  std::string category;
  std::uint64_t form = 0;    // which constructor; see there
  std::uint64_t wanted = 0;  // of NoSpace; task of WorkerDied
  std::uint64_t available = 0;
  std::vector<std::byte> bytes;  // of BufferTooShort
  std::string path1;
  std::string path2;
  std::string registered;         // mangled name of a SHOAL_EXCEPTION's type
  std::vector<std::byte> object;  // that, encoded
  std::vector<std::byte> nested;  // another one, encoded
  std::string backtrace;
};

struct Type {
  const std::type_info* info;
  bool (*is_nested)(const std::type_info& type);
  std::exception_ptr (*nest)(const std::exception_ptr&,
                             const std::exception_ptr&);
  // False: it cannot be made again, and travels as a RemoteError.
  bool (*fill)(const std::exception&, Wire&);
  std::exception_ptr (*make)(const Wire&);
};

template <class E>
const E& as(const std::exception& error) {
  return static_cast<const E&>(error);
}

template <class E>
constexpr Type type(bool (*fill)(const std::exception&, Wire&),
                    std::exception_ptr (*make)(const Wire&)) {
  return {&typeid(E), &is_nested<E>, &nest<E>, fill, make};
}

// Constructed from its text.
template <class E>
constexpr Type text() {
  return type<E>([](const std::exception&, Wire&) { return true; },
                 [](const Wire& wire) {
                   return std::make_exception_ptr(E(wire.message));
                 });
}

// Its text says all, and cannot be given.
template <class E>
constexpr Type plain() {
  return type<E>([](const std::exception&, Wire&) { return true; },
                 [](const Wire&) { return std::make_exception_ptr(E()); });
}

// The categories that every process knows.
const std::error_category* category_of(const std::string& name) {
  for (const std::error_category* category :
       {&std::generic_category(), &std::system_category(),
        &std::iostream_category(), &std::future_category()})
    if (name == category->name()) return category;
  return nullptr;
}

bool fill_code(const std::error_code& code, Wire& wire) {
  wire.code = code.value();
  wire.category = code.category().name();
  return category_of(wire.category) == &code.category();
}

// A text and a code are put together again to what() as it was; no such text
// has a NUL in it.
std::error_code code_of(const Wire& wire) {
  for (const std::string* text : {&wire.message, &wire.path1, &wire.path2})
    if (text->find('\0') != std::string::npos)
      throw Corrupt("shoal: a message has a NUL in the text of an exception");
  const auto* category = category_of(wire.category);
  if (category == nullptr)
    throw Corrupt("shoal: a message names an unknown error category");
  return {static_cast<int>(wire.code), *category};
}

// What was given to the constructor: the text in front of `suffix`.
bool cut(std::string& text, const std::string& suffix) {
  if (!text.ends_with(suffix)) return false;
  text.resize(text.size() - suffix.size());
  return true;
}

// Form 1: with a text, to which the code's own is appended; 0: without one.
bool fill_system_error(const std::system_error& error, Wire& wire) {
  if (!fill_code(error.code(), wire)) return false;
  const std::string suffix = error.code().message();
  wire.form = cut(wire.message, ": " + suffix) ? 1 : 0;
  return wire.form == 1 || wire.message == suffix;
}

// "filesystem error: <text>: <code> [path1] [path2]"; form: how many paths.
bool fill_filesystem_error(const std::filesystem::filesystem_error& error,
                           Wire& wire) {
  constexpr std::string_view kPrefix = "filesystem error: ";
  if (!fill_code(error.code(), wire) || !wire.message.starts_with(kPrefix))
    return false;
  wire.path1 = error.path1().string();
  wire.path2 = error.path2().string();
  const std::string code = ": " + error.code().message();
  const std::string one = code + " [" + wire.path1 + "]";
  const std::string two = one + " [" + wire.path2 + "]";
  if (cut(wire.message, two))
    wire.form = 2;
  else if (cut(wire.message, one))
    wire.form = 1;
  else if (!cut(wire.message, code))
    return false;
  wire.message.erase(0, kPrefix.size());
  return true;
}

constexpr std::array kTypes = {
    text<std::runtime_error>(),
    text<std::logic_error>(),
    text<std::invalid_argument>(),
    text<std::domain_error>(),
    text<std::length_error>(),
    text<std::out_of_range>(),
    text<std::range_error>(),
    text<std::overflow_error>(),
    text<std::underflow_error>(),
    plain<std::exception>(),
    plain<std::bad_exception>(),
    plain<std::bad_alloc>(),
    plain<std::bad_array_new_length>(),
    plain<std::bad_cast>(),
    plain<std::bad_any_cast>(),
    plain<std::bad_typeid>(),
    plain<std::bad_function_call>(),
    plain<std::bad_optional_access>(),
    plain<std::bad_variant_access>(),
    plain<std::bad_weak_ptr>(),
    type<std::system_error>(
        [](const std::exception& error, Wire& wire) {
          return fill_system_error(as<std::system_error>(error), wire);
        },
        [](const Wire& wire) {
          return std::make_exception_ptr(
              wire.form == 0 ? std::system_error(code_of(wire))
                             : std::system_error(code_of(wire), wire.message));
        }),
    type<std::ios_base::failure>(
        [](const std::exception& error, Wire& wire) {
          return fill_system_error(as<std::ios_base::failure>(error), wire) &&
                 wire.form == 1;
        },
        [](const Wire& wire) {
          return std::make_exception_ptr(
              std::ios_base::failure(wire.message, code_of(wire)));
        }),
    type<std::filesystem::filesystem_error>(
        [](const std::exception& error, Wire& wire) {
          return fill_filesystem_error(
              as<std::filesystem::filesystem_error>(error), wire);
        },
        [](const Wire& wire) {
          using std::filesystem::filesystem_error;
          const std::error_code code = code_of(wire);
          return std::make_exception_ptr(
              wire.form == 0 ? filesystem_error(wire.message, code)
              : wire.form == 1
                  ? filesystem_error(wire.message, wire.path1, code)
                  : filesystem_error(wire.message, wire.path1, wire.path2,
                                     code));
        }),
    type<std::future_error>(
        [](const std::exception& error, Wire& wire) {
          return fill_code(as<std::future_error>(error).code(), wire);
        },
        [](const Wire& wire) {
          return std::make_exception_ptr(
              std::future_error(static_cast<std::future_errc>(wire.code)));
        }),
    type<std::regex_error>(
        [](const std::exception& error, Wire& wire) {
          wire.code = as<std::regex_error>(error).code();
          return true;
        },
        [](const Wire& wire) {
          // The enumerators of libstdc++, 0 to 14, take four bits, and another
          // value is none of the enumeration's.
          if (wire.code < 0 || wire.code > 15)
            throw Corrupt("shoal: a message names an unknown regex error");
          return std::make_exception_ptr(std::regex_error(
              static_cast<std::regex_constants::error_type>(wire.code)));
        }),
    text<Error>(),
    text<TimeoutError>(),
    text<Empty>(),
    text<Full>(),
    text<Closed>(),
    text<ShutDown>(),
    text<EndOfFile>(),
    text<PeerDied>(),
    text<BrokenPipe>(),
    text<MessageTooLong>(),
    text<TypeMismatch>(),
    text<OwnerDied>(),
    text<BrokenBarrier>(),
    text<Corrupt>(),
    text<Cancelled>(),
    text<BrokenPool>(),
    text<NotRunning>(),
    text<NotReady>(),
    type<BufferTooShort>(
        [](const std::exception& error, Wire& wire) {
          wire.bytes = as<BufferTooShort>(error).message();
          return true;
        },
        [](const Wire& wire) {
          return std::make_exception_ptr(
              BufferTooShort(wire.message, wire.bytes));
        }),
    type<NoSpace>(
        [](const std::exception& error, Wire& wire) {
          wire.wanted = as<NoSpace>(error).wanted();
          wire.available = as<NoSpace>(error).available();
          return true;
        },
        [](const Wire& wire) {
          return std::make_exception_ptr(
              NoSpace(wire.message, wire.wanted, wire.available));
        }),
    type<WorkerDied>(
        [](const std::exception& error, Wire& wire) {
          wire.pid = as<WorkerDied>(error).pid();
          wire.code = as<WorkerDied>(error).exitcode();
          wire.wanted = as<WorkerDied>(error).task();
          return true;
        },
        [](const Wire& wire) {
          return std::make_exception_ptr(
              WorkerDied(wire.message, static_cast<pid_t>(wire.pid),
                         static_cast<int>(wire.code), wire.wanted));
        }),
    type<RemoteError>(
        [](const std::exception& error, Wire& wire) {
          wire.type_name = as<RemoteError>(error).type_name();
          wire.message = as<RemoteError>(error).message();
          wire.pid = as<RemoteError>(error).pid();
          wire.backtrace = as<RemoteError>(error).backtrace();
          return true;
        },
        [](const Wire& wire) {
          return std::make_exception_ptr(
              RemoteError(wire.type_name, wire.message,
                          static_cast<pid_t>(wire.pid), wire.backtrace));
        }),
    text<BarrierTimeout>(),
};

// Of one that has another nested in it: what the program called it.
std::string demangled(const std::type_info* info) {
  if (info == nullptr) return "unknown exception";
  int status = 0;
  const std::unique_ptr<char, decltype(&free)> known(
      abi::__cxa_demangle(info->name(), nullptr, nullptr, &status), &free);
  std::string name = known != nullptr ? known.get() : info->name();
  constexpr std::string_view kPrefix = "std::_Nested_exception<";
  if (name.starts_with(kPrefix) && name.ends_with('>')) {
    name = name.substr(kPrefix.size(), name.size() - kPrefix.size() - 1);
    cut(name, " const");
  }
  return name;
}

constexpr int kDeepest = 16;  // exceptions nested in each other

// A type of the program's may have a what() that returns nothing.
std::string text_of(const std::exception& error) {
  const char* const text = error.what();
  return text != nullptr ? text : "";
}

std::exception_ptr nested_in(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const std::nested_exception& outer) {
    return outer.nested_ptr();
  } catch (...) {
    return nullptr;
  }
}

// What streams throw is of a class derived from std::ios_base::failure that no
// header declares.
bool is_thrown_by_streams(const std::type_info& info) {
  return std::string_view(info.name()) == "St13__ios_failure";
}

// Which of kTypes it is, and whether another is nested in it.
const Type* known(const std::type_info& info, bool& nests) {
  const std::type_info& declared =
      is_thrown_by_streams(info) ? typeid(std::ios_base::failure) : info;
  for (const Type& type : kTypes) {
    nests = type.is_nested(info);
    if (nests || *type.info == declared) return &type;
  }
  return nullptr;
}

void fill_standard(const std::exception& error, Wire& wire) {
  wire.type_name = demangled(&typeid(error));
  wire.message = text_of(error);
  bool nests = false;
  const Type* const type = known(typeid(error), nests);
  if (type == nullptr) return;
  if (nests) wire.type_name = demangled(type->info);
  if (type->fill(error, wire))
    wire.type = static_cast<std::uint32_t>(type - kTypes.data() + 1);
  else
    wire.message = text_of(error);
}

// False: what it encodes itself by has thrown, and it goes without its type.
bool fill_registered(const Registered& entry, const std::exception_ptr& error,
                     Wire& wire) {
  try {
    wire.object = entry.encode(error);
    wire.registered = entry.type->name();
    return true;
  } catch (...) {
    return false;
  }
}

std::vector<std::byte> encode(const std::exception_ptr& error, int depth) {
  Wire wire;
  wire.pid = getpid();
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& e) {
    fill_standard(e, wire);
  } catch (...) {
    wire.type_name = demangled(abi::__cxa_current_exception_type());
  }
  if (wire.type == 0) {
    const std::type_info* const type = error.__cxa_exception_type();
    const Registered* const entry = type != nullptr ? find(*type) : nullptr;
    if ((entry == nullptr || !fill_registered(*entry, error, wire)) &&
        wire.backtrace.empty())
      wire.backtrace = throw_trace::of(error);
  }
  if (const auto inner = nested_in(error); inner != nullptr && depth > 0)
    wire.nested = encode(inner, depth - 1);
  return codec::to_bytes(wire);
}

std::exception_ptr decode(std::span<const std::byte> bytes, int depth);

std::exception_ptr with_nested(
    const Wire& wire, int depth, const std::exception_ptr& made,
    std::exception_ptr (*nest)(const std::exception_ptr&,
                               const std::exception_ptr&)) {
  if (wire.nested.empty() || depth == 0) return made;
  return nest(made, decode(wire.nested, depth - 1));
}

std::exception_ptr decode(std::span<const std::byte> bytes, int depth) {
  try {
    const Wire wire = codec::from_bytes<Wire>(bytes);
    if (wire.type > kTypes.size())
      throw Corrupt("shoal: a message names an unknown exception");
    if (wire.type != 0) {
      const Type& type = kTypes[wire.type - 1];
      return with_nested(wire, depth, type.make(wire), type.nest);
    }
    if (const Registered* entry =
            wire.registered.empty() ? nullptr : find(wire.registered))
      return with_nested(wire, depth, entry->decode(wire.object), entry->nest);
    return with_nested(wire, depth,
                       std::make_exception_ptr(RemoteError(
                           wire.type_name, wire.message,
                           static_cast<pid_t>(wire.pid), wire.backtrace)),
                       &nest<RemoteError>);
  } catch (...) {
    return std::current_exception();
  }
}

constinit StaticList<Registered> registered;

auto of_type(const std::type_info& type) {
  return [&](const Registered& entry) {
    return *entry.type == type || entry.is_nested(type);
  };
}

}  // namespace

bool add(Registered& entry) {
  registered.add(entry, of_type(*entry.type));  // in another file, too
  return true;
}

const Registered* find(const std::type_info& type) {
  return registered.find(of_type(type));
}

const Registered* find(const std::string& mangled_name) {
  return registered.find([&](const Registered& entry) {
    return mangled_name == entry.type->name();
  });
}

std::vector<std::byte> encode(std::exception_ptr error) {
  return encode(error, kDeepest);
}

std::exception_ptr decode(std::span<const std::byte> bytes) {
  return decode(bytes, kDeepest);
}

}  // namespace shoal::exception_codec
