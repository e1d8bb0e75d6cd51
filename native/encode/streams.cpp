// Streams between the layout and the frame: the entropy stage on them, and the copy into a frame.
#include <cstdlib>
#include <cstring>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "../encode.hpp"
#include "../pool.hpp"

namespace codec {

void give_back() {
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}

Streams* new_streams(uint64_t segments, uint32_t streams) {
  Streams* s = static_cast<Streams*>(calloc(1, sizeof(Streams)));
  if (!s) return nullptr;
  s->segments = segments;
  s->refused = ~uint64_t{0};
  s->streams = streams;
  s->part = static_cast<Part*>(calloc(segments * streams + 1, sizeof(Part)));
  if (s->part) return s;
  free(s);
  return nullptr;
}

void free_streams(Streams* s) {
  if (!s) return;
  for (uint64_t i = 0; i < s->segments * s->streams; ++i) free(s->part[i].data);
  for (const Part& part : s->shared) free(part.data);
  free(s->part);
  free(s);
}

bool set_part(Part& part, const uint8_t* data, uint64_t size) {
  uint8_t* copy = static_cast<uint8_t*>(malloc(size + kSlack));
  if (!copy) return false;
  if (size) memcpy(copy, data, size);
  free(part.data);
  part.data = copy;
  part.size = size;
  return true;
}

void key_range(const Streams* streams, uint32_t stream, uint32_t width, Kind kind, uint64_t* least, uint64_t* most) {
  *least = ~uint64_t{0};
  *most = 0;
  for (uint64_t i = 0; i < streams->segments; ++i) {
    const Part& part = streams->part[i * streams->streams + stream];
    kernels().key_range(part.data, part.size / width, width, kind, least, most);
  }
}

uint64_t histogram(const Streams* streams, uint32_t stream, uint32_t width, Kind kind, uint32_t shift, uint64_t first,
                   uint64_t* counts, uint64_t size) {
  uint64_t or_of_keys = 0;
  for (uint64_t i = 0; i < streams->segments; ++i) {
    const Part& part = streams->part[i * streams->streams + stream];
    or_of_keys |= kernels().count_keys(part.data, part.size / width, width, kind, shift, first, counts, size);
  }
  return or_of_keys;
}

Status code_stream(Streams* streams, uint32_t stream, const Coder& coder, uint32_t threads) {
  struct Context {
    Streams* streams;
    uint32_t stream;
    const Coder& coder;
    Status status;
  } context{streams, stream, coder, Status::ok};
  parallel(
      uint32_t(streams->segments), threads,
      [](void* at, uint32_t task, uint32_t) {
        Context& c = *static_cast<Context*>(at);
        const CodingKernels& coding = kernels().codings[uint32_t(c.coder.coding)];
        Part& part = c.streams->part[uint64_t(task) * c.streams->streams + c.stream];
        const uint64_t items = part.size / c.coder.width;
        const uint64_t room = coding.room(c.coder.state, part.data, items);
        uint8_t* out = static_cast<uint8_t*>(malloc(room + kSlack));
        if (!out) {
          __atomic_store_n(&c.status, Status::no_memory, __ATOMIC_RELAXED);
          return;
        }
        part.size = coding.encode(c.coder.state, part.data, items, out);
        free(part.data);
        // Room that is left over goes back; where the C library cannot do that, it stays.
        void* const kept = part.size < room ? realloc(out, part.size + kSlack) : out;
        part.data = kept ? static_cast<uint8_t*>(kept) : out;
      },
      &context);
  return context.status;
}

void pack_bits(Streams* streams, uint32_t stream, uint32_t bits, uint32_t threads) {
  struct Context {
    Streams* streams;
    uint32_t stream, bits;
  } context{streams, stream, bits};
  parallel(
      uint32_t(streams->segments), threads,
      [](void* at, uint32_t task, uint32_t) {
        Context& c = *static_cast<Context*>(at);
        Part& part = c.streams->part[uint64_t(task) * c.streams->streams + c.stream];
        // In place: eight codes are read before the fewer bytes that they become are written, and what is written
        // behind those lies before the next codes.
        kernels().pack_codes(part.data, part.size, c.bits, part.data);
        part.size = (part.size * c.bits + 7) / 8;
        memset(part.data + part.size, 0, kSlack);
      },
      &context);
}

// Bytes of parts after whose release memory is given back, each time.
constexpr uint64_t kGivenBack = 32 << 20;

void move_parts(Streams* streams, uint8_t* base, const uint64_t* offsets, uint32_t* checksums, uint32_t threads) {
  struct Context {
    Streams* streams;
    uint8_t* base;
    const uint64_t* offsets;
    uint32_t* checksums;
    uint64_t released;
  } context{streams, base, offsets, checksums, 0};
  parallel(
      uint32_t(streams->segments), threads,
      [](void* at, uint32_t task, uint32_t) {
        Context& c = *static_cast<Context*>(at);
        for (uint32_t s = 0; s < c.streams->streams; ++s) {
          if (c.streams->shared[s].data) continue;
          Part& part = c.streams->part[uint64_t(task) * c.streams->streams + s];
          uint64_t at_table = s * c.streams->segments + task;
          c.checksums[at_table] = kernels().crc32c(0, part.data, part.size);
          memcpy(c.base + c.offsets[at_table], part.data, part.size);
          const uint64_t released = __atomic_add_fetch(&c.released, part.size, __ATOMIC_RELAXED);
          free(part.data);
          if (released / kGivenBack != (released - part.size) / kGivenBack) give_back();
          part = {};
        }
      },
      &context);
}

}  // namespace codec
