#include "tests/ipc/pipe_scene.h"

#include <chrono>
#include <cstring>

namespace shoal::support {

using std::chrono::milliseconds;

std::vector<std::byte> long_message(unsigned seed, std::size_t n) {
  std::vector<std::byte> bytes(n);
  for (std::size_t i = 0; i < n; ++i)
    bytes[i] = static_cast<std::byte>(seed + i * 31 + i / 251);
  return bytes;
}

Item receive_one(Connection& from, Timeout timeout) {
  try {
    const auto bytes = from.recv_bytes(npos, timeout);
    if (bytes.size() == sizeof(Item)) {
      Item item;
      std::memcpy(&item, bytes.data(), sizeof item);
      return item;
    }
    const auto seed = static_cast<unsigned>(bytes.at(0));
    return bytes == long_message(seed, bytes.size()) ? seed : 666;
  } catch (const PeerDied&) {
    return kDied;
  } catch (const EndOfFile&) {
    return kEnded;
  }
}

Items PipeScene::drain(Round& round) {
  Items items;
  for (;;) {
    if (!mine.poll(milliseconds(500))) {
      round.expect(false, "LOST: the death is not seen");
      return items;
    }
    const Item item = receive_one(mine);
    if (item == kDied) break;
    round.expect(item != kEnded, "nobody has closed it");
    round.expect(item < 100, "half a message");
    items.push_back(item);
    if (items.size() > 100) break;
  }
  expect_gone(round);
  return items;
}

void PipeScene::expect_gone(Round& round) {
  for (int i = 0; i < 2; ++i) {
    try {
      mine.send(Item{1}, milliseconds(500));
      round.expect(false, "sent to the dead");
    } catch (const BrokenPipe&) {
    } catch (const Error& error) {
      round.expect(false, error.what());
    }
    try {
      mine.send_bytes(long_message(), 0, npos, milliseconds(500));
      round.expect(false, "sent to the dead");
    } catch (const BrokenPipe&) {
    } catch (const Error& error) {
      round.expect(false, error.what());
    }
  }
}

std::unique_ptr<Partner> receiver(Connection& end) {
  return std::make_unique<Partner>([&end] { return receive_one(end); });
}

std::unique_ptr<Partner> sender(Connection& end) {
  return std::make_unique<Partner>([&end]() -> Item {
    try {
      for (;;) end.send(Item{1});
    } catch (const BrokenPipe&) {
      return kBroken;
    }
  });
}

}  // namespace shoal::support
