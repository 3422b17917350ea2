#pragma once
// What the codec makes of bytes from anywhere, for the fuzzer and for tests.
//
//   run(data, size);   // aborts with a message if something is wrong
//
// The first byte says which type the others are decoded as. Whatever they are:
//   - decoding gives a value or throws Corrupt, or what serialize throws;
//   - it allocates no more than kFloor + kFactor × size bytes;
//   - a view of them is refused just when the value is;
//   - a value that was accepted encodes to size() bytes and decodes to an equal
//     one.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace shoal::fuzz {

// Were the bytes accepted as a value?
bool run(const std::uint8_t* data, std::size_t size);

struct Seed {
  std::string name;  // of its file in corpus/
  std::vector<std::uint8_t> bytes;
};
// An empty and a full value of every type: what corpus/ holds.
std::vector<Seed> seeds();

}  // namespace shoal::fuzz
