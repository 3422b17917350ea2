#include "shoal/shared/manager.h"

#include <errno.h>
#include <unistd.h>

#include <chrono>
#include <exception>
#include <system_error>

#include "shoal/ipc/errors.h"
#include "shoal/ipc/exception_codec.h"
#include "shoal/ipc/pipe.h"
#include "shoal/ipc/segment.h"

namespace shoal {
namespace {

using namespace std::chrono_literals;

}  // namespace

Manager::Manager(std::optional<StartMethod> method, std::string_view name) {
  const std::uint64_t id = segment::random_id();
  auto [ours, theirs] = Pipe();
  server_ = std::make_unique<Process>(
      ProcessOptions{.name = "manager", .daemon = true, .start_method = method},
      manager::serve, id, std::string(name), std::move(theirs));
  server_->start();
  maker_ = getpid();
  const auto problem = ours.recv<std::vector<std::byte>>();
  try {
    if (!problem.empty())
      std::rethrow_exception(exception_codec::decode(problem));
  } catch (const std::system_error& error) {
    if (error.code() != std::errc::address_in_use) throw;
    throw_system_error(EEXIST, "create",
                       "Manager \"" + std::string(name) + '"');
  }
  remote_ = manager::Remote::of(id);
}

Manager Manager::create(std::string_view name) {
  segment::check_name(name);
  return Manager(std::nullopt, name);
}

Manager Manager::open(std::string_view name) {
  segment::check_name(name);
  return Manager(manager::Remote::open(name));
}

Manager& Manager::operator=(Manager&& other) noexcept {
  if (this != &other) {
    const Manager ended(std::move(*this));
    remote_ = std::move(other.remote_);
    server_ = std::move(other.server_);
    maker_ = other.maker_;
  }
  return *this;
}

Manager::~Manager() {
  try {
    shutdown();
  } catch (const std::exception&) {
    // It has ended by itself.
  }
}

bool Manager::owns() const { return server_ != nullptr && maker_ == getpid(); }

void Manager::shutdown() {
  if (!owns()) {
    static_cast<void>(server_.release());  // not this process's to end
    return;
  }
  const std::unique_ptr<Process> server = std::move(server_);
  server->terminate();  // it prints what it has to, and ends
  if (server->join(1s)) return;
  server->kill();
  server->join();
}

bool Manager::is_alive() const {
  if (owns()) return server_->is_alive();
  return remote_ != nullptr && remote_->is_there();
}

pid_t Manager::pid() const { return owns() ? server_->pid() : 0; }

}  // namespace shoal
