#pragma once
// Two ZeroMQ PAIR sockets over ipc://, where libzmq is installed: its library
// is opened at run time, so that nothing is needed to build this.

#include <dlfcn.h>
#include <unistd.h>

#include <cstddef>
#include <stdexcept>
#include <string>

namespace shoal::bench {

class ZmqPair {
 public:
  static bool available() { return api().library != nullptr; }

  explicit ZmqPair(std::size_t)
      : address_("ipc:///tmp/shoal-bench-" + std::to_string(getpid())) {}
  ~ZmqPair() { ::unlink(address_.c_str() + 6); }
  ZmqPair(const ZmqPair&) = delete;
  ZmqPair& operator=(const ZmqPair&) = delete;

  void send(int end, const std::byte* from, std::size_t n) {
    if (api().send(socket(end), from, n, 0) < 0)
      throw std::runtime_error("zmq_send");
  }
  void receive(int end, std::byte* to, std::size_t n) {
    if (api().receive(socket(end), to, n, 0) < 0)
      throw std::runtime_error("zmq_recv");
  }
  // A thread of its own sends: what it has not sent is lost at _exit().
  void finish() {
    api().close(socket_);
    api().terminate(context_);
    socket_ = context_ = nullptr;
  }

  // After a stream from end 0 to end 1: a receiver whose peer has closed its
  // socket never gets what is still queued (libzmq 4.3.4).
  void drain(int end) {
    std::byte all{};
    if (end == 0)
      receive(0, &all, 1);
    else
      send(1, &all, 1), finish();
  }

 private:
  static constexpr int kPair = 0;
  struct Api {
    void* library = dlopen("libzmq.so.5", RTLD_NOW);
    void* (*context)() = nullptr;
    void* (*socket)(void*, int) = nullptr;
    int (*bind)(void*, const char*) = nullptr;
    int (*connect)(void*, const char*) = nullptr;
    int (*close)(void*) = nullptr;
    int (*terminate)(void*) = nullptr;
    int (*send)(void*, const void*, std::size_t, int) = nullptr;
    int (*receive)(void*, void*, std::size_t, int) = nullptr;
    Api() {
      if (library == nullptr) return;
      find(context, "zmq_ctx_new");
      find(socket, "zmq_socket");
      find(bind, "zmq_bind");
      find(connect, "zmq_connect");
      find(close, "zmq_close");
      find(terminate, "zmq_ctx_term");
      find(send, "zmq_send");
      find(receive, "zmq_recv");
    }
    template <class F>
    void find(F& function, const char* name) {
      function = reinterpret_cast<F>(dlsym(library, name));
      if (function == nullptr) throw std::runtime_error(name);
    }
  };
  static const Api& api() {
    static const Api found;
    return found;
  }
  // Made in the process that uses it: a context does not survive a fork.
  void* socket(int end) {
    if (socket_ == nullptr) {
      context_ = api().context();
      socket_ = api().socket(context_, kPair);
      const int failed = end == 0 ? api().bind(socket_, address_.c_str())
                                  : api().connect(socket_, address_.c_str());
      if (failed != 0) throw std::runtime_error("zmq_bind or zmq_connect");
    }
    return socket_;
  }

  std::string address_;
  void* context_ = nullptr;
  void* socket_ = nullptr;
};

}  // namespace shoal::bench
