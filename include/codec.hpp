/**
 * @file
 * C++17 over codec.h: handles that end themselves, errors that are exceptions. Header-only.
 *
 * What codec.h says of threads, ownership and memory holds here too. Objects can be moved and not copied; one that
 * was moved from can only be destroyed or assigned to.
 */
#ifndef CODEC_HPP
#define CODEC_HPP

#include <cstddef>
#include <cstdint>
#include <exception>
#include <istream>
#include <memory>
#include <ostream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <codec.h>

namespace codec {

/** What a call of the C library failed with. */
class Error : public std::runtime_error {
public:
    Error(codec_status status, const std::string &text) : std::runtime_error(text), status_(status) {}

    /** One of CODEC_ERROR_*. */
    codec_status status() const noexcept { return status_; }

private:
    codec_status status_;
};

namespace detail {

inline void check(codec_status status) {
    if (status != CODEC_OK) throw Error(status, codec_last_error());
}

template <typename T, codec_status (*destroy)(T *)> struct Destroy {
    void operator()(T *handle) const noexcept { destroy(handle); }
};

template <typename T, codec_status (*destroy)(T *)> using Handle = std::unique_ptr<T, Destroy<T, destroy>>;

template <typename T> T sized() {
    T value{};
    value.struct_size = sizeof value;
    return value;
}

/** Gets a list of which the library first tells the length. */
template <typename T, typename Get> std::vector<T> list(Get get) {
    std::size_t count = 0;
    check(get(static_cast<T *>(nullptr), std::size_t{0}, &count));
    std::vector<T> all(count);
    check(get(all.data(), all.size(), &count));
    return all;
}

} // namespace detail

/** Defaults, with the size set. */
inline codec_encoder_options encoder_options() { return detail::sized<codec_encoder_options>(); }
inline codec_decoder_options decoder_options() { return detail::sized<codec_decoder_options>(); }
inline codec_nac_writer_options nac_writer_options() { return detail::sized<codec_nac_writer_options>(); }
inline codec_nac_reader_options nac_reader_options() { return detail::sized<codec_nac_reader_options>(); }

/** A model: immutable, and shared by any number of threads. */
class Model {
public:
    static Model from_file(const std::string &path) {
        codec_model *handle = nullptr;
        detail::check(codec_model_from_file(path.c_str(), &handle));
        return Model(handle);
    }

    /** The bytes must stay until the model and everything made of it are gone. */
    static Model from_memory(const void *data, std::size_t len) {
        codec_model *handle = nullptr;
        detail::check(codec_model_from_memory(data, len, &handle));
        return Model(handle);
    }

    static Model built_in() {
        codec_model *handle = nullptr;
        detail::check(codec_model_default(&handle));
        return Model(handle);
    }

    codec_model_info info() const {
        auto info = detail::sized<codec_model_info>();
        detail::check(codec_model_get_info(get(), &info));
        return info;
    }

    std::string name() const {
        const char *name = codec_model_name(get());
        return name ? name : "";
    }

    std::vector<std::uint32_t> codebook_sizes() const {
        return detail::list<std::uint32_t>([this](auto *to, auto capacity, auto *count) {
            return codec_model_codebook_sizes(get(), to, capacity, count);
        });
    }

    std::vector<std::uint32_t> codebook_choices() const {
        return detail::list<std::uint32_t>([this](auto *to, auto capacity, auto *count) {
            return codec_model_codebook_choices(get(), to, capacity, count);
        });
    }

    /** Bits a second; of all codebooks by default. */
    double bitrate(std::uint32_t codebooks = 0) const {
        double bits = 0;
        detail::check(codec_model_bitrate(get(), codebooks, &bits));
        return bits;
    }

    /** Samples. */
    double delay() const {
        double samples = 0;
        detail::check(codec_model_delay(get(), &samples));
        return samples;
    }

    const codec_model *get() const noexcept { return handle_.get(); }

private:
    explicit Model(codec_model *handle) : handle_(handle) {}

    detail::Handle<codec_model, codec_model_destroy> handle_;
};

/** Samples to codes. */
class Encoder {
public:
    /** `codebooks` of the options must be set where `first_codebook` is. */
    explicit Encoder(const Model &model, const codec_encoder_options &options = encoder_options()) {
        codec_encoder *handle = nullptr;
        auto asked = options;
        if (asked.codebooks == 0 && asked.first_codebook != 0) {
            throw Error(CODEC_ERROR_ARGUMENT, "give `codebooks` with `first_codebook`");
        }
        if (asked.codebooks == 0) asked.codebooks = model.info().codebooks;
        codebooks_ = asked.codebooks;
        detail::check(codec_encoder_create(model.get(), &asked, &handle));
        handle_.reset(handle);
    }

    /** Codes a frame. */
    std::size_t codebooks() const noexcept { return codebooks_; }

    /** Takes `samples` samples of every channel, interleaved; returns codes, frame by frame. */
    std::vector<std::uint16_t> push(const float *pcm, std::size_t samples) {
        return run(samples, [&](auto *codes, auto capacity, auto *frames) {
            return codec_encoder_push(get(), pcm, samples, codes, capacity, frames);
        });
    }

    /** Ends the signal. */
    std::vector<std::uint16_t> finish() {
        return run(0, [&](auto *codes, auto capacity, auto *frames) {
            return codec_encoder_finish(get(), codes, capacity, frames);
        });
    }

    /** Of what the last push or finish returned; empty for models without segments. */
    std::vector<codec_segment> segments() {
        return detail::list<codec_segment>([this](auto *to, auto capacity, auto *count) {
            return codec_encoder_segments(get(), to, capacity, count);
        });
    }

    void reset() { detail::check(codec_encoder_reset(get())); }

    codec_encoder *get() const noexcept { return handle_.get(); }

private:
    template <typename Call> std::vector<std::uint16_t> run(std::size_t samples, Call call) {
        std::size_t frames = 0;
        detail::check(codec_encoder_max_frames(get(), samples, &frames));
        std::vector<std::uint16_t> codes(frames * codebooks_);
        detail::check(call(codes.data(), frames, &frames));
        codes.resize(frames * codebooks_);
        return codes;
    }

    detail::Handle<codec_encoder, codec_encoder_destroy> handle_;
    std::size_t codebooks_ = 0;
};

/** Codes to samples. */
class Decoder {
public:
    explicit Decoder(const Model &model, const codec_decoder_options &options = decoder_options()) {
        codec_decoder *handle = nullptr;
        const auto info = model.info();
        channels_ = info.channels;
        detail::check(codec_decoder_create(model.get(), &options, &handle));
        handle_.reset(handle);
    }

    /** Takes frames; returns interleaved samples. */
    std::vector<float> push(const std::uint16_t *codes, std::size_t frames) {
        return run(frames, [&](auto *pcm, auto capacity, auto *samples) {
            return codec_decoder_push(get(), codes, frames, pcm, capacity, samples);
        });
    }

    /** The same for a model that cuts signals into segments. */
    std::vector<float> push_segment(const std::uint16_t *codes, std::size_t frames, float scale) {
        return run(frames, [&](auto *pcm, auto capacity, auto *samples) {
            return codec_decoder_push_segment(get(), codes, frames, scale, pcm, capacity, samples);
        });
    }

    /** Ends the signal. */
    std::vector<float> finish() {
        return run(0, [&](auto *pcm, auto capacity, auto *samples) {
            return codec_decoder_finish(get(), pcm, capacity, samples);
        });
    }

    void reset() { detail::check(codec_decoder_reset(get())); }

    codec_decoder *get() const noexcept { return handle_.get(); }

private:
    template <typename Call> std::vector<float> run(std::size_t frames, Call call) {
        std::size_t samples = 0;
        detail::check(codec_decoder_max_samples(get(), frames, &samples));
        std::vector<float> pcm(samples * channels_);
        detail::check(call(pcm.data(), samples, &samples));
        pcm.resize(samples * channels_);
        return pcm;
    }

    detail::Handle<codec_decoder, codec_decoder_destroy> handle_;
    std::size_t channels_ = 0;
};

namespace detail {

/** A C++ stream for the library. No exception of the stream's gets into C: it is kept, and thrown when the call is back. */
template <typename Stream> struct StreamIo {
    Stream *stream;
    std::exception_ptr thrown;

    template <typename Do> static std::int64_t guarded(void *user, Do what) noexcept {
        auto &self = *static_cast<StreamIo *>(user);
        try {
            return what(*self.stream);
        } catch (...) {
            self.thrown = std::current_exception();
            return -1;
        }
    }

    void check(codec_status status) {
        if (thrown) std::rethrow_exception(std::exchange(thrown, nullptr));
        detail::check(status);
    }
};

inline std::int64_t read_stream(void *user, void *data, std::size_t len) {
    return StreamIo<std::istream>::guarded(user, [&](std::istream &in) -> std::int64_t {
        in.read(static_cast<char *>(data), static_cast<std::streamsize>(len));
        return in.bad() ? -1 : static_cast<std::int64_t>(in.gcount());
    });
}

inline std::int64_t write_stream(void *user, const void *data, std::size_t len) {
    return StreamIo<std::ostream>::guarded(user, [&](std::ostream &out) -> std::int64_t {
        out.write(static_cast<const char *>(data), static_cast<std::streamsize>(len));
        return out ? static_cast<std::int64_t>(len) : -1;
    });
}

inline std::ios_base::seekdir direction(std::int32_t whence) {
    return whence == CODEC_SEEK_START ? std::ios_base::beg : whence == CODEC_SEEK_END ? std::ios_base::end : std::ios_base::cur;
}

inline std::int64_t seek_input(void *user, std::int64_t offset, std::int32_t whence) {
    return StreamIo<std::istream>::guarded(user, [&](std::istream &in) -> std::int64_t {
        in.clear();
        in.seekg(static_cast<std::istream::off_type>(offset), direction(whence));
        return in ? static_cast<std::int64_t>(in.tellg()) : -1;
    });
}

inline std::int64_t seek_output(void *user, std::int64_t offset, std::int32_t whence) {
    return StreamIo<std::ostream>::guarded(user, [&](std::ostream &out) -> std::int64_t {
        out.seekp(static_cast<std::ostream::off_type>(offset), direction(whence));
        return out ? static_cast<std::int64_t>(out.tellp()) : -1;
    });
}

} // namespace detail

/** Writes a .nac file to memory, or to a stream, which must outlive it. */
class NacWriter {
public:
    explicit NacWriter(const Model &model, const codec_nac_writer_options &options = nac_writer_options()) {
        codec_nac_writer *handle = nullptr;
        detail::check(codec_nac_writer_create_memory(model.get(), &options, &handle));
        handle_.reset(handle);
    }

    /** With `seekable` the header states the number of samples too. */
    NacWriter(const Model &model, std::ostream &out, bool seekable = true,
              const codec_nac_writer_options &options = nac_writer_options())
        : stream_(new Io{&out, nullptr}) {
        codec_nac_writer *handle = nullptr;
        auto io = detail::sized<codec_io>();
        io.user = stream_.get();
        io.write = detail::write_stream;
        if (seekable) io.seek = detail::seek_output;
        check(codec_nac_writer_create_io(model.get(), &io, &options, &handle));
        handle_.reset(handle);
    }

    void begin_segment(float scale) { check(codec_nac_writer_begin_segment(get(), scale)); }
    void write(const std::uint16_t *codes, std::size_t frames) { check(codec_nac_writer_write(get(), codes, frames)); }
    void lost(std::uint32_t frames) { check(codec_nac_writer_lost(get(), frames)); }
    void flush() { check(codec_nac_writer_flush(get())); }

    /** Writes what an encoder returned, with its segments. */
    void write(const std::vector<std::uint16_t> &codes, Encoder &encoder) {
        const std::uint16_t *at = codes.data();
        const auto segments = encoder.segments();
        for (const auto &segment : segments) {
            begin_segment(segment.scale);
            write(at, segment.frames);
            at += segment.frames * encoder.codebooks();
        }
        if (segments.empty()) write(at, codes.size() / encoder.codebooks());
    }

    void finish(std::uint64_t samples = CODEC_UNKNOWN) { check(codec_nac_writer_finish(get(), samples)); }

    /** The bytes of a finished file in memory. */
    std::vector<std::uint8_t> data() {
        const void *data = nullptr;
        std::size_t len = 0;
        check(codec_nac_writer_data(get(), &data, &len));
        const auto *bytes = static_cast<const std::uint8_t *>(data);
        return std::vector<std::uint8_t>(bytes, bytes + len);
    }

    codec_nac_writer *get() const noexcept { return handle_.get(); }

private:
    using Io = detail::StreamIo<std::ostream>;

    void check(codec_status status) {
        if (stream_) stream_->check(status);
        else detail::check(status);
    }

    std::unique_ptr<Io> stream_;
    detail::Handle<codec_nac_writer, codec_nac_writer_destroy> handle_;
};

/** Reads a .nac file from memory or from a stream, which must outlive it. */
class NacReader {
public:
    NacReader(const void *data, std::size_t len, const codec_nac_reader_options &options = nac_reader_options()) {
        codec_nac_reader *handle = nullptr;
        detail::check(codec_nac_reader_create_memory(data, len, &options, &handle));
        handle_.reset(handle);
    }

    explicit NacReader(std::istream &in, const codec_nac_reader_options &options = nac_reader_options())
        : stream_(new Io{&in, nullptr}) {
        codec_nac_reader *handle = nullptr;
        auto io = detail::sized<codec_io>();
        io.user = stream_.get();
        io.read = detail::read_stream;
        io.seek = detail::seek_input;
        check(codec_nac_reader_create_io(&io, &options, &handle));
        handle_.reset(handle);
    }

    codec_nac_info info() {
        auto info = detail::sized<codec_nac_info>();
        check(codec_nac_reader_get_info(get(), &info));
        return info;
    }

    /** Throws if another model made the file. */
    void check_model(const Model &model) { check(codec_nac_reader_check_model(get(), model.get())); }

    /** The next item; its codes stay until the next call. */
    codec_nac_item next() {
        auto item = detail::sized<codec_nac_item>();
        check(codec_nac_reader_next(get(), &item));
        return item;
    }

    void seek(std::uint64_t frame) { check(codec_nac_reader_seek(get(), frame)); }

    codec_nac_reader *get() const noexcept { return handle_.get(); }

private:
    using Io = detail::StreamIo<std::istream>;

    void check(codec_status status) {
        if (stream_) stream_->check(status);
        else detail::check(status);
    }

    std::unique_ptr<Io> stream_;
    detail::Handle<codec_nac_reader, codec_nac_reader_destroy> handle_;
};

} // namespace codec

#endif
