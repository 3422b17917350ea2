// A queue in the event loop of Boost.Asio: its descriptor is readable while
// there is something to get.
//
//   ./bazelw run -c opt //examples:asio_queue

#include <shoal/shoal.h>

#include <boost/asio.hpp>
#include <chrono>
#include <cstdio>
#include <string>

namespace asio = boost::asio;

class Reader {
 public:
  Reader(asio::io_context& context, shoal::Queue<std::string> queue)
      : queue_(std::move(queue)), readable_(context, queue_.fileno()) {
    await();
  }
  ~Reader() { readable_.release(); }  // the descriptor is the queue's

 private:
  void await() {
    readable_.async_wait(asio::posix::descriptor_base::wait_read,
                         [this](const boost::system::error_code& error) {
                           if (!error && drain()) await();
                         });
  }
  bool drain() {
    try {
      while (const auto text = queue_.try_get())
        std::printf("got %s\n", text->c_str());
      return true;
    } catch (const shoal::ShutDown&) {
      return false;  // nothing left to wait for: the loop ends
    }
  }

  shoal::Queue<std::string> queue_;
  asio::posix::stream_descriptor readable_;
};

int main() {
  shoal::Queue<std::string> queue;
  shoal::Process sender([queue]() mutable {
    for (int n = 0; n < 5; ++n) queue.put("message " + std::to_string(n));
    queue.shutdown();
  });
  sender.start();
  asio::io_context context;
  asio::steady_timer timer(context, std::chrono::milliseconds(1));
  timer.async_wait([](auto) { std::puts("the loop serves others, too"); });
  Reader reader(context, queue);
  context.run();
  sender.join();
}
