// Puts load on a server: HTTP/1.1 over keep-alive connections, one thread, no JavaScript, because it shares the cores with the
// server. Two kinds of load: a fixed number of requests at a time, or arrivals at a rate, regardless of the answers (Poisson).
// Every answer is compared with the expected one. load.mjs compiles and starts this.
//
//   generator PORT PLAN closed WIDTH SECONDS
//   generator PORT PLAN open RATE_FROM RATE_TO SECONDS STEPS
//
// PLAN: a text line "COUNT REQUEST_BYTES ID_AT ANSWER_BYTES SETTING...", COUNT requests, each complete and with nine digits at
// ID_AT where its id goes, and for each setting COUNT answers. Prints a JSON object for each step.
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <queue>
#include <random>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace {

constexpr size_t kIdDigits = 9;
// As many as a load balancer would hold; requests that are due while all are busy wait, which counts in their latency.
constexpr size_t kConnections = 1000;

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "generator: %s\n", what.c_str());
  std::exit(1);
}

// Seconds since the start.
double now() {
  static const auto start = std::chrono::steady_clock::now();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

struct Plan {
  size_t count = 0, request_bytes = 0, id_at = 0, answer_bytes = 0;
  std::vector<std::string> settings;
  std::string requests;              // one after another
  std::vector<std::string> answers;  // by setting, one after another

  explicit Plan(const char* path) {
    std::ifstream file(path, std::ios::binary);
    std::string line;
    std::getline(file, line);
    std::istringstream head(line);
    head >> count >> request_bytes >> id_at >> answer_bytes;
    for (std::string setting; head >> setting;) settings.push_back(setting);
    const auto read = [&](size_t bytes) {
      std::string content(bytes, '\0');
      file.read(content.data(), static_cast<std::streamsize>(bytes));
      return content;
    };
    requests = read(count * request_bytes);
    for (size_t i = 0; i < settings.size(); ++i) answers.push_back(read(count * answer_bytes));
    if (!file || count == 0) fail(std::string("file ") + path + ": it is no plan");
  }
};

// What became of the requests that were due in one step.
struct Outcomes {
  std::map<int, size_t> statuses;
  std::map<std::string, size_t> settings;
  std::vector<double> latencies;  // of the answers, in milliseconds
  size_t wrong = 0;
  double saved = 0, seconds = 0;

  void print() {
    std::ranges::sort(latencies);
    const auto quantile = [&](double q) {
      if (latencies.empty()) return -1.0;
      return latencies[std::min(latencies.size() - 1, static_cast<size_t>(q * static_cast<double>(latencies.size())))];
    };
    const auto print_counts = [](const char* name, const auto& counts, const auto& key) {
      std::printf("\"%s\":{", name);
      const char* comma = "";
      for (const auto& [of, count] : counts) {
        std::printf("%s\"%s\":%zu", comma, key(of).c_str(), count);
        comma = ",";
      }
      std::printf("},");
    };
    std::printf("{");
    print_counts("statuses", statuses, [](int status) { return std::to_string(status); });
    print_counts("settings", settings, [](const std::string& setting) { return setting; });
    rusage used;
    getrusage(RUSAGE_SELF, &used);
    const auto us = [](const timeval& time) { return static_cast<double>(time.tv_sec) * 1e6 + static_cast<double>(time.tv_usec); };
    std::printf("\"wrong\":%zu,\"saved\":%.6f,\"seconds\":%.6f,\"p50Ms\":%.4f,\"p99Ms\":%.4f,\"cpuUs\":%.0f}\n", wrong, saved,
                seconds, quantile(0.5), quantile(0.99), us(used.ru_utime) + us(used.ru_stime));
  }
};

struct Connection {
  int fd = -1;
  size_t number = 0, sent = 0;  // of the request under way, and how many of its bytes were sent
  double due = 0;
  Outcomes* outcomes = nullptr;  // null: idle
  char id[kIdDigits];
  std::string received;
};

// The value after `name` in the head or the JSON of an answer.
std::string_view after(std::string_view text, std::string_view name) {
  const size_t at = text.find(name);
  if (at == text.npos) return {};
  text.remove_prefix(at + name.size());
  return text.substr(0, text.find_first_of("\",}\r"));
}

size_t number_in(std::string_view text) {
  size_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

class Generator {
 public:
  Generator(int port, const Plan& plan) : plan_(plan), epoll_(epoll_create1(0)), timer_(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK)) {
    rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    address_.sin_family = AF_INET;
    address_.sin_port = htons(static_cast<uint16_t>(port));
    address_.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    watch(timer_, nullptr, EPOLLIN);
  }

  void closed(size_t width, double seconds) {
    Outcomes outcomes;
    const double start = now();
    again_until_ = start + seconds;
    for (size_t i = 0; i < width; ++i) send_request(start, outcomes);
    while (under_way_ > 0) wait(-1);
    outcomes.seconds = now() - start;
    outcomes.print();
  }

  void open(double from, double to, double seconds, size_t steps) {
    std::vector<Outcomes> parts(steps);
    std::mt19937_64 random(1);
    std::exponential_distribution<double> wait_for(1);
    const double start = now();
    for (double due = 0; due < seconds;) {
      for (; due < seconds && start + due <= now(); due += wait_for(random) / (from + (to - from) * due / seconds)) {
        const size_t step = static_cast<size_t>(due / seconds * static_cast<double>(steps));
        send_request(start + due, parts[std::min(step, steps - 1)]);
      }
      wait(std::max(0.0, start + due - now()));
    }
    while (under_way_ > 0) wait(-1);
    // A single step ends with its last answer, so that late answers count in its duration.
    for (Outcomes& part : parts) part.seconds = steps == 1 ? now() - start : seconds / static_cast<double>(steps);
    for (Outcomes& part : parts) part.print();
  }

 private:
  void watch(int fd, Connection* connection, uint32_t events, int operation = EPOLL_CTL_ADD) {
    epoll_event event{};
    event.events = events;
    event.data.ptr = connection;
    if (epoll_ctl(epoll_, operation, fd, &event) != 0) fail("epoll_ctl failed");
  }

  // Handles what happens within `seconds`, at least one event; without a limit if negative.
  void wait(double seconds) {
    itimerspec time{};
    if (seconds >= 0) {
      const auto ns = std::max<int64_t>(1, static_cast<int64_t>(seconds * 1e9));
      time.it_value = {ns / 1'000'000'000, ns % 1'000'000'000};
    }
    timerfd_settime(timer_, 0, &time, nullptr);
    epoll_event events[64];
    const int count = epoll_wait(epoll_, events, 64, -1);
    for (int i = 0; i < count; ++i) {
      auto* connection = static_cast<Connection*>(events[i].data.ptr);
      if (connection == nullptr || connection->fd < 0) continue;
      if (events[i].events & EPOLLOUT) write_more(*connection);
      if (connection->fd >= 0 && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) read_more(*connection);
    }
  }

  void send_request(double due, Outcomes& outcomes) {
    ++under_way_;
    if (idle_.empty()) {
      if (connected_ == kConnections) return waiting_.push({due, &outcomes});
      connect_one();
    }
    send_request_now(due, outcomes);
  }

  void send_request_now(double due, Outcomes& outcomes) {
    Connection& connection = *idle_.back();
    idle_.pop_back();
    connection.number = next_++;
    connection.sent = 0;
    connection.due = due;
    connection.outcomes = &outcomes;
    connection.received.clear();
    char digits[kIdDigits + 1];
    std::snprintf(digits, sizeof digits, "%09zu", connection.number % 1'000'000'000);
    std::memcpy(connection.id, digits, kIdDigits);
    write_more(connection);
  }

  void connect_one() {
    auto connection = std::make_unique<Connection>();
    connection->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    // Blocks for some microseconds: the server is on this machine.
    if (connection->fd < 0 || connect(connection->fd, reinterpret_cast<sockaddr*>(&address_), sizeof address_) != 0) {
      fail(std::string("connect: ") + std::strerror(errno));
    }
    const int on = 1;
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    watch(connection->fd, connection.get(), EPOLLIN);
    idle_.push_back(connection.get());
    all_.push_back(std::move(connection));
    ++connected_;
  }

  void write_more(Connection& connection) {
    char* const request = const_cast<char*>(plan_.requests.data()) + connection.number % plan_.count * plan_.request_bytes;
    const iovec parts[] = {{request, plan_.id_at},
                           {connection.id, kIdDigits},
                           {request + plan_.id_at + kIdDigits, plan_.request_bytes - plan_.id_at - kIdDigits}};
    while (connection.sent < plan_.request_bytes) {
      iovec rest[3];
      size_t count = 0, skip = connection.sent;
      for (const iovec& part : parts) {
        const size_t skipped = std::min(skip, part.iov_len);
        skip -= skipped;
        if (skipped < part.iov_len) rest[count++] = {static_cast<char*>(part.iov_base) + skipped, part.iov_len - skipped};
      }
      msghdr message{};
      message.msg_iov = rest;
      message.msg_iovlen = count;
      const ssize_t sent = sendmsg(connection.fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
      if (sent < 0) {
        if (errno != EAGAIN) return finish(connection, 0, {});
        return watch(connection.fd, &connection, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
      }
      connection.sent += static_cast<size_t>(sent);
    }
    watch(connection.fd, &connection, EPOLLIN, EPOLL_CTL_MOD);
  }

  void read_more(Connection& connection) {
    char buffer[16384];
    const ssize_t bytes = recv(connection.fd, buffer, sizeof buffer, MSG_DONTWAIT);
    if (bytes < 0 && errno == EAGAIN) return;
    if (bytes <= 0) return connection.outcomes ? finish(connection, 0, {}) : drop(connection);
    connection.received.append(buffer, static_cast<size_t>(bytes));
    const std::string_view all = connection.received;
    const size_t head_end = all.find("\r\n\r\n");
    if (head_end == all.npos) return;
    std::string head(all.substr(0, head_end + 2));
    std::ranges::transform(head, head.begin(), [](unsigned char c) { return std::tolower(c); });
    const std::string_view body = all.substr(head_end + 4);
    if (body.size() < number_in(after(head, "\r\ncontent-length: "))) return;
    closing_ = head.find("\r\nconnection: close") != head.npos;
    const size_t json_bytes = number_in(after(head, "\r\ninference-header-content-length: "));
    const int status = static_cast<int>(number_in(std::string_view(head).substr(9, 3)));
    finish(connection, status, body.substr(0, json_bytes), body.substr(std::min(json_bytes, body.size())));
  }

  void finish(Connection& connection, int status, std::string_view json, std::string_view scores = {}) {
    Outcomes& outcomes = *connection.outcomes;
    ++outcomes.statuses[status];
    if (status == 200) {
      outcomes.latencies.push_back(1000 * (now() - connection.due));
      const std::string_view setting = after(json, "\"policy\":\"");
      ++outcomes.settings[std::string(setting)];
      outcomes.saved += std::atof(std::string(after(json, "\"multiply_adds_skipped\":")).c_str());
      if (after(json, "\"id\":\"") != std::string_view(connection.id, kIdDigits) || !is_expected(connection, setting, scores)) {
        ++outcomes.wrong;
      }
    }
    connection.outcomes = nullptr;
    --under_way_;
    if (status == 0 || closing_) drop(connection);
    else idle_.push_back(&connection);
    closing_ = false;
    if (!waiting_.empty()) {
      const auto [due, of] = waiting_.front();
      waiting_.pop();
      if (idle_.empty()) connect_one();
      send_request_now(due, *of);
    }
    if (now() < again_until_) send_request(now(), outcomes);
  }

  bool is_expected(const Connection& connection, std::string_view setting, std::string_view scores) const {
    const auto at = std::ranges::find(plan_.settings, setting);
    if (at == plan_.settings.end()) return false;
    const std::string& answers = plan_.answers[static_cast<size_t>(at - plan_.settings.begin())];
    return scores == std::string_view(answers).substr(connection.number % plan_.count * plan_.answer_bytes, plan_.answer_bytes);
  }

  // The object lives on: later events of the same wait() may name it.
  void drop(Connection& connection) {
    std::erase(idle_, &connection);
    close(connection.fd);
    connection.fd = -1;
    --connected_;
  }

  const Plan& plan_;
  const int epoll_, timer_;
  sockaddr_in address_{};
  std::vector<std::unique_ptr<Connection>> all_;
  std::vector<Connection*> idle_;
  std::queue<std::pair<double, Outcomes*>> waiting_;
  size_t next_ = 0, under_way_ = 0, connected_ = 0;
  double again_until_ = -1;  // of a closed load
  bool closing_ = false;
};

}  // namespace

int main(int argc, char** argv) {
  const std::string_view kind = argc > 3 ? argv[3] : "";
  if (!(kind == "closed" && argc == 6) && !(kind == "open" && argc == 8)) fail("the arguments are wrong; see its source");
  const Plan plan(argv[2]);
  Generator generator(std::atoi(argv[1]), plan);
  if (kind == "closed") generator.closed(static_cast<size_t>(std::atoi(argv[4])), std::atof(argv[5]));
  else generator.open(std::atof(argv[4]), std::atof(argv[5]), std::atof(argv[6]), static_cast<size_t>(std::atoi(argv[7])));
}
