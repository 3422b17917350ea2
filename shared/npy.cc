#include "shoal/shared/npy.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <limits>
#include <optional>
#include <stdexcept>

#include "shoal/ipc/errors.h"

namespace shoal::npy {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";
// More than any array of ours has; NumPy itself refuses 10,000 characters.
constexpr std::size_t kMostText = std::size_t{1} << 20;
constexpr int kMostDepth = 32;

std::string quoted(const std::string& text) { return "'" + text + "'"; }

std::string scalar(const Type& type, std::size_t size) {
  return quoted((size == 1 || type.code == 'V' ? "|" : "<") +
                std::string(1, type.code) + std::to_string(size));
}

// NumPy shows bytes with a sign as text.
bool is_text(const Type& type) {
  return type.is_array && type.code == 'i' && type.element_size() == 1;
}
bool has_dimension(const Type& type) { return type.is_array && !is_text(type); }

std::string padding(std::size_t bytes) {
  return "('', '|V" + std::to_string(bytes) + "')";
}

std::string record(const Type& type, std::size_t size) {
  std::string text;
  const auto add = [&](const std::string& field) {
    text += (text.empty() ? "" : ", ") + field;
  };
  std::size_t end = 0;
  for (const Type::Field& field : type.fields) {
    if (field.offset > end) add(padding(field.offset - end));
    std::string item = "(" + quoted(field.name) + ", " + describe(field.type);
    if (has_dimension(field.type))
      item += ", (" + std::to_string(field.type.count) + ",)";
    add(item + ")");
    end = field.offset + field.type.size;
  }
  if (end < size) add(padding(size - end));
  return "[" + text + "]";
}

// ---- reading: Python's literals, as far as headers have them ----

struct Literal {
  enum class Kind { none, text, number, boolean, list, tuple } kind;
  std::string text = {};
  std::uint64_t number = 0;  // of a boolean, too
  std::vector<Literal> items = {};
};

class Parser {
 public:
  Parser(std::string_view text, const std::string& path)
      : text_(text), path_(path) {}

  [[noreturn]] void refuse(const std::string& why) const {
    throw Corrupt(path_ + " is no NumPy file that can be mapped: " + why);
  }

  std::vector<std::pair<std::string, Literal>> dictionary() {
    std::vector<std::pair<std::string, Literal>> entries;
    expect('{');
    while (!take('}')) {
      Literal key = value(0);
      if (key.kind != Literal::Kind::text) refuse("a key that is no string");
      expect(':');
      entries.emplace_back(std::move(key.text), value(0));
      if (!take(',') && peek() != '}') refuse("its dictionary does not end");
    }
    skip_space();
    if (at_ != text_.size()) refuse("something behind its dictionary");
    return entries;
  }

 private:
  void skip_space() {
    while (at_ < text_.size() &&
           (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t'))
      ++at_;
  }
  char peek() {
    skip_space();
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  bool take(char wanted) {
    if (peek() != wanted) return false;
    ++at_;
    return true;
  }
  bool take(std::string_view word) {
    skip_space();
    if (!text_.substr(at_).starts_with(word)) return false;
    at_ += word.size();
    return true;
  }
  void expect(char wanted) {
    if (!take(wanted))
      refuse(std::string("'") + wanted + "' is missing in its header");
  }

  Literal value(int depth) {
    if (depth > kMostDepth) refuse("its header is nested too deep");
    const char c = peek();
    if (c == '\'' || c == '"') return string(c);
    if (c >= '0' && c <= '9') return number();
    if (take('(')) return sequence(Literal::Kind::tuple, ')', depth);
    if (take('[')) return sequence(Literal::Kind::list, ']', depth);
    if (take("True")) return {.kind = Literal::Kind::boolean, .number = 1};
    if (take("False")) return {.kind = Literal::Kind::boolean};
    if (take("None")) return {.kind = Literal::Kind::none};
    refuse("its header has something unexpected at character " +
           std::to_string(at_));
  }
  Literal string(char quote) {
    const std::size_t end = text_.find(quote, ++at_);
    if (end == text_.npos) refuse("a string in its header does not end");
    Literal literal{.kind = Literal::Kind::text,
                    .text = std::string(text_.substr(at_, end - at_))};
    if (literal.text.find('\\') != std::string::npos)
      refuse("a field's name has a backslash");
    at_ = end + 1;
    return literal;
  }
  Literal number() {
    Literal literal{.kind = Literal::Kind::number};
    const char* const first = text_.data() + at_;
    const auto [end, error] =
        std::from_chars(first, text_.data() + text_.size(), literal.number);
    if (error != std::errc()) refuse("a number in its header is too large");
    at_ += static_cast<std::size_t>(end - first);
    if (at_ < text_.size() && text_[at_] == 'L') ++at_;  // Python 2
    return literal;
  }
  // (5) is 5, but (5,) a tuple.
  Literal sequence(Literal::Kind kind, char end, int depth) {
    Literal literal{.kind = kind};
    bool comma = false;
    while (!take(end)) {
      if (!literal.items.empty() && !comma) refuse("a comma is missing");
      literal.items.push_back(value(depth + 1));
      comma = take(',');
    }
    if (kind == Literal::Kind::tuple && literal.items.size() == 1 && !comma)
      return Literal(literal.items.front());
    return literal;
  }

  std::string_view text_;
  const std::string& path_;
  std::size_t at_ = 0;
};

constexpr std::size_t kMostBytes = std::size_t{1} << 62;

std::size_t times(const Parser& parser, std::size_t a, std::size_t b) {
  if (b != 0 && a > kMostBytes / b) parser.refuse("its sizes are absurd");
  return a * b;
}

Type type_of(const Literal& literal, const Parser& parser);

Type scalar_of(const std::string& name, const Parser& parser) {
  const auto refuse = [&](const std::string& why) {
    parser.refuse("its dtype '" + name + "' " + why);
  };
  if (name.size() < 2) refuse("is unknown");
  if (name[0] == '>')
    refuse(
        "is big-endian; convert it with numpy: "
        "a.astype(a.dtype.newbyteorder('<'))");
  const std::size_t code_at =
      name[0] == '<' || name[0] == '|' || name[0] == '=';
  const char code = name[code_at];
  std::size_t size = 0;
  const char* const digits = name.data() + code_at + 1;
  const char* const end = name.data() + name.size();
  const auto [last, error] = std::from_chars(digits, end, size);
  if (code == 'O') refuse("is of Python objects, which no other process has");
  if (error != std::errc() || last != end || digits == end)
    refuse("is unknown");
  switch (code) {
    case 'b':
    case 'i':
    case 'u':
    case 'f':
    case 'c':
      if (size == 0 || size > 32) refuse("is unknown");
      return Type(code, size);
    case 'S':  // text is bytes
      return size == 0 ? Type('V', 0) : array_of(Type('i', 1), size);
    case 'V':
      return Type('V', size);
    default:
      refuse("has no counterpart in C++");
  }
  return Type();
}

Type field_of(const Literal& item, std::string& name, const Parser& parser) {
  using Kind = Literal::Kind;
  if (item.kind != Kind::tuple || item.items.size() < 2 ||
      item.items.size() > 3)
    parser.refuse("a field of its dtype is no (name, type)");
  const Literal& called = item.items[0];
  if (called.kind == Kind::text) {
    name = called.text;
  } else if (called.kind == Kind::tuple && called.items.size() == 2 &&
             called.items[1].kind == Kind::text) {
    name = called.items[1].text;  // (title, name)
  } else {
    parser.refuse("a field of its dtype has no name");
  }
  Type type = type_of(item.items[1], parser);
  if (item.items.size() < 3) return type;
  const Literal& shape = item.items[2];
  std::size_t count = 1;
  if (shape.kind == Kind::number) {
    count = shape.number;
  } else if (shape.kind == Kind::tuple) {
    for (const Literal& extent : shape.items) {
      if (extent.kind != Kind::number)
        parser.refuse("the shape of a field is no tuple of numbers");
      count = times(parser, count, extent.number);
    }
  } else {
    parser.refuse("the shape of a field is no tuple of numbers");
  }
  times(parser, type.size, count);
  return array_of(std::move(type), count);
}

Type type_of(const Literal& literal, const Parser& parser) {
  if (literal.kind == Literal::Kind::text)
    return scalar_of(literal.text, parser);
  if (literal.kind != Literal::Kind::list || literal.items.empty())
    parser.refuse("its dtype is neither a string nor a list of fields");
  Type type;
  for (const Literal& item : literal.items) {
    std::string name;
    Type field = field_of(item, name, parser);
    const std::size_t offset = type.size;
    if (field.size > kMostBytes - offset) parser.refuse("its sizes are absurd");
    type.size += field.size;
    if (name.empty() && field.code == 'V' && field.fields.empty())
      continue;  // padding
    type.fields.push_back({std::move(name), offset, std::move(field)});
  }
  return type;
}

}  // namespace

Type element_of(const Type& array) {
  Type element = array;
  element.is_array = false;
  element.size = array.element_size();
  element.count = 1;
  return element;
}

bool operator==(const Type& a, const Type& b) {
  return a.code == b.code && a.size == b.size && a.count == b.count &&
         std::equal(a.fields.begin(), a.fields.end(), b.fields.begin(),
                    b.fields.end(),
                    [](const Type::Field& x, const Type::Field& y) {
                      return x.offset == y.offset && x.type == y.type;
                    });
}

std::string describe(const Type& type) {
  if (is_text(type)) return quoted("|S" + std::to_string(type.count));
  const Type element = element_of(type);
  return element.fields.empty() ? scalar(element, element.size)
                                : record(element, element.size);
}

std::size_t count_of(const Shape& shape) {
  constexpr std::size_t kMost = std::size_t{1} << 63;
  std::size_t count = 1;
  for (const std::size_t extent : shape)
    if (__builtin_mul_overflow(count, extent, &count) || count > kMost)
      count = kMost;
  for (const std::size_t extent : shape)
    if (extent == 0) return 0;
  return count;
}

std::string describe(const Shape& shape) {
  return std::to_string(count_of(shape)) + " elements of shape " +
         shape.to_string();
}

Shape strides_of(const Shape& shape, bool fortran_order) {
  std::array<std::size_t, Shape::kMostDimensions> strides{};
  std::size_t stride = 1;
  for (std::size_t k = 0; k < shape.size(); ++k) {
    const std::size_t dimension = fortran_order ? k : shape.size() - 1 - k;
    strides[dimension] = stride;
    stride *= shape[dimension];
  }
  return Shape(std::span(strides).first(shape.size()));
}

bool same_names(const Type& found, const Type& expected) {
  return std::equal(found.fields.begin(), found.fields.end(),
                    expected.fields.begin(), expected.fields.end(),
                    [&](const Type::Field& x, const Type::Field& y) {
                      return (!expected.named || x.name == y.name) &&
                             same_names(x.type, y.type);
                    });
}

std::vector<std::string> split_names(std::string_view names) {
  std::vector<std::string> split(1);
  for (const char c : names) {
    if (c == ',')
      split.emplace_back();
    else if (c != ' ')
      split.back() += c;
  }
  return split;
}

void write_header(void* page, const Type& type, const Shape& shape) {
  constexpr std::size_t kBefore = 10;  // magic, version, length of the text
  constexpr std::size_t kText = kHeaderBytes - kBefore;
  std::string extents;
  for (const std::size_t extent : shape)
    extents += std::to_string(extent) + ",";
  if (has_dimension(type)) extents += std::to_string(type.count) + ",";
  const auto text_for = [&](const std::string& dtype) {
    return "{'descr': " + dtype + ", 'fortran_order': False, 'shape': (" +
           extents + "), }";
  };
  std::string text = text_for(describe(type));
  if (text.size() >= kText)  // NumPy would not read more than 10,000 anyway
    text = text_for(quoted("|V" + std::to_string(type.size)));
  text.resize(kText - 1, ' ');
  text += '\n';
  auto* out = static_cast<unsigned char*>(page);
  std::memcpy(out, kMagic.data(), kMagic.size());
  out[6] = 1;  // version 1.0
  out[7] = 0;
  out[8] = static_cast<unsigned char>(kText & 0xFF);
  out[9] = static_cast<unsigned char>(kText >> 8);
  std::memcpy(out + kBefore, text.data(), text.size());
}

std::size_t header_bytes(std::span<const std::byte> preamble,
                         const std::string& path) {
  const Parser parser({}, path);
  if (preamble.size() < kPreamble ||
      std::memcmp(preamble.data(), kMagic.data(), kMagic.size()) != 0)
    parser.refuse("it does not begin with \\x93NUMPY");
  const auto byte = [&](std::size_t i) {
    return std::to_integer<std::size_t>(preamble[i]);
  };
  const std::size_t major = byte(6);
  if (major < 1 || major > 3)
    parser.refuse("its format has version " + std::to_string(major));
  const std::size_t text =
      major == 1 ? byte(8) | byte(9) << 8
                 : byte(8) | byte(9) << 8 | byte(10) << 16 | byte(11) << 24;
  if (text > kMostText)
    parser.refuse("its header would have " + std::to_string(text) + " bytes");
  return (major == 1 ? 10 : 12) + text;
}

Header read_header(std::span<const std::byte> bytes, const std::string& path) {
  const std::size_t all = header_bytes(bytes, path);
  const std::size_t before = bytes[6] == std::byte{1} ? 10 : 12;
  if (bytes.size() < all) {
    const Parser cut({}, path);
    cut.refuse("its header is cut off");
  }
  Parser parser(
      {reinterpret_cast<const char*>(bytes.data()) + before, all - before},
      path);
  std::optional<Type> type;
  std::optional<bool> fortran;
  std::optional<std::vector<std::size_t>> shape;
  for (const auto& [key, value] : parser.dictionary()) {
    if (key == "descr") {
      type = type_of(value, parser);
    } else if (key == "fortran_order" && value.kind == Literal::Kind::boolean) {
      fortran = value.number != 0;
    } else if (key == "shape" && value.kind == Literal::Kind::tuple) {
      shape.emplace();
      for (const Literal& extent : value.items) {
        if (extent.kind != Literal::Kind::number)
          parser.refuse("its shape is no tuple of numbers");
        shape->push_back(extent.number);
      }
    } else {
      parser.refuse("its header has an entry '" + key + "' that is unknown");
    }
  }
  if (!type || !fortran || !shape)
    parser.refuse("its header lacks descr, fortran_order or shape");
  return {.type = std::move(*type),
          .fortran_order = *fortran,
          .shape = std::move(*shape),
          .data_offset = all};
}

}  // namespace shoal::npy
