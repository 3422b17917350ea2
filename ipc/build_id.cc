#include "shoal/ipc/build_id.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

#include "shoal/ipc/descriptor.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/fork_mutex.h"

namespace shoal::build_id {
namespace {

constexpr std::size_t kMostNotes = 1 << 16;  // bytes of one segment of notes

std::size_t aligned(std::size_t n) { return (n + 3) & ~std::size_t{3}; }

// The NT_GNU_BUILD_ID note among `size` bytes of notes, or nothing.
std::string_view find(const std::byte* note, std::size_t size) {
  while (size >= sizeof(ElfW(Nhdr))) {
    ElfW(Nhdr) header;
    memcpy(&header, note, sizeof header);
    const std::size_t whole =
        sizeof header + aligned(header.n_namesz) + aligned(header.n_descsz);
    if (whole > size) break;
    const auto* name = reinterpret_cast<const char*>(note + sizeof header);
    if (header.n_type == NT_GNU_BUILD_ID && header.n_namesz == 4 &&
        memcmp(name, "GNU", 4) == 0)
      return {name + 4, header.n_descsz};
    note += whole;
    size -= whole;
  }
  return {};
}

// Of a file: whether all bytes were there.
bool read_at(int fd, const std::string& path, std::uint64_t offset, void* to,
             std::size_t size) {
  auto* bytes = static_cast<char*>(to);
  while (size != 0) {
    const ssize_t n = pread(fd, bytes, size, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw_system_error(errno, "read", path, size);
    if (n == 0) return false;
    bytes += n;
    offset += static_cast<std::uint64_t>(n);
    size -= static_cast<std::size_t>(n);
  }
  return true;
}

struct Image {
  std::vector<ElfW(Phdr)> segments;
  std::string id;
};

Image read_image(const std::string& path) {
  const Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) throw_system_error(errno, "open", path);
  Image image;
  ElfW(Ehdr) header;
  if (!read_at(file.get(), path, 0, &header, sizeof header) ||
      memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 ||
      header.e_ident[EI_CLASS] !=
          (sizeof(void*) == 8 ? ELFCLASS64 : ELFCLASS32) ||
      header.e_phentsize != sizeof(ElfW(Phdr)))
    return image;
  std::vector<ElfW(Phdr)> segments(header.e_phnum);
  if (!read_at(file.get(), path, header.e_phoff, segments.data(),
               segments.size() * sizeof segments[0]))
    return image;
  for (const auto& segment : segments) {
    if (segment.p_type != PT_NOTE || segment.p_filesz > kMostNotes) continue;
    std::vector<std::byte> notes(segment.p_filesz);
    if (!read_at(file.get(), path, segment.p_offset, notes.data(),
                 notes.size()))
      continue;
    if (image.id.empty()) image.id = find(notes.data(), notes.size());
  }
  image.segments = std::move(segments);
  return image;
}

constinit ForkMutex walking;
SHOAL_AT_FORK const HeldAtFork<walking> held_at_fork;

}  // namespace

int for_each_module(int (*callback)(dl_phdr_info*, std::size_t, void*),
                    void* argument) {
  const std::lock_guard lock(walking);
  return dl_iterate_phdr(callback, argument);
}

std::string_view of_module(const dl_phdr_info& info) {
  for (int i = 0; i < info.dlpi_phnum; ++i) {
    const auto& segment = info.dlpi_phdr[i];
    if (segment.p_type != PT_NOTE) continue;
    const auto id = find(
        reinterpret_cast<const std::byte*>(info.dlpi_addr + segment.p_vaddr),
        segment.p_memsz);
    if (!id.empty()) return id;
  }
  return {};
}

std::string of_file(const std::string& path) { return read_image(path).id; }

bool is_this_program(const std::string& path) {
  Image image = read_image(path);
  return for_each_module(
             [](dl_phdr_info* info, std::size_t, void* argument) {
               // The first is the program.
               const auto& file = *static_cast<const Image*>(argument);
               const bool same = file.segments.size() == info->dlpi_phnum &&
                                 memcmp(file.segments.data(), info->dlpi_phdr,
                                        file.segments.size() *
                                            sizeof file.segments[0]) == 0 &&
                                 file.id == of_module(*info);
               return same ? 2 : 1;
             },
             &image) == 2;
}

}  // namespace shoal::build_id
