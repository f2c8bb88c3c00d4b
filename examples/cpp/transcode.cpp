// Encodes a wav file to a .nac file and decodes that to a wav file: the same bytes as
//
//     codec encode -m MODEL IN.wav OUT.nac && codec decode -m MODEL OUT.nac OUT.wav
//
// Without a model: that in the box, nano-16k, for speech at 16 kHz.
//
// c++ -std=c++17 transcode.cpp $(pkg-config --cflags --libs codec) -o transcode

#include <algorithm>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <vector>

#include <codec.hpp>

#include "../c/wav.h"

namespace {

void must(bool ok, const char *what) {
    if (!ok) throw std::runtime_error(std::string(what) + " failed");
}

void encode(const codec::Model &model, const char *from, const char *to) {
    wav in;
    must(wav_read(from, &in) == 0, "reading a wav file of 16-bit PCM");
    const std::unique_ptr<float, void (*)(void *)> owned(in.pcm, std::free);
    const auto info = model.info();
    must(in.sample_rate == info.sample_rate && in.channels == info.channels, "matching the model's rate and channels");

    std::ofstream file(to, std::ios::binary);
    codec::Encoder encoder(model);
    codec::NacWriter writer(model, file);
    // Any size of the pieces gives the same codes.
    const std::size_t most = 777;
    for (std::size_t at = 0; at < in.samples; at += most) {
        const std::size_t piece = std::min(most, in.samples - at);
        writer.write(encoder.push(in.pcm + at * in.channels, piece), encoder);
    }
    writer.write(encoder.finish(), encoder);
    writer.finish(in.samples);
    file.close();
    must(file.good(), "writing the .nac file");
}

void decode(const codec::Model &model, const char *from, const char *to) {
    std::ifstream file(from, std::ios::binary);
    const std::vector<char> bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    codec::NacReader reader(bytes.data(), bytes.size());
    reader.check_model(model);
    const auto head = reader.info();
    must(head.samples < UINT32_MAX / 4, "a length that a wav file can have");
    auto options = codec::decoder_options();
    options.codebooks = head.codebooks;
    options.first_codebook = head.first_codebook;
    options.threads = 2;
    codec::Decoder decoder(model, options);

    std::vector<float> pcm;
    const auto append = [&pcm](const std::vector<float> &piece) { pcm.insert(pcm.end(), piece.begin(), piece.end()); };
    for (auto item = reader.next(); item.kind != CODEC_NAC_END; item = reader.next()) {
        must(item.kind == CODEC_NAC_FRAMES, "a file without losses");
        const auto frames = static_cast<std::size_t>(item.frames);
        append(head.segmented ? decoder.push_segment(item.codes, frames, item.scale) : decoder.push(item.codes, frames));
    }
    append(decoder.finish());
    // What the last frame was filled up with goes; what a system drops at the end is silence.
    pcm.resize(static_cast<std::size_t>(head.samples) * head.channels);

    const std::unique_ptr<FILE, int (*)(FILE *)> out(std::fopen(to, "wb"), std::fclose);
    must(out != nullptr, "opening the wav file");
    must(wav_write_header(out.get(), head.sample_rate, head.channels, static_cast<std::uint32_t>(head.samples)) == 0 &&
             wav_write(out.get(), pcm.data(), pcm.size()) == 0 && std::fflush(out.get()) == 0,
         "writing the wav file");
}

} // namespace

int main(int argc, char **argv) {
    if (argc != 4 && argc != 5) {
        std::cerr << "usage: " << argv[0] << " [MODEL] IN.wav OUT.nac OUT.wav\n";
        return 2;
    }
    try {
        const auto model = argc == 5 ? codec::Model::from_file(argv[1]) : codec::Model::built_in();
        const auto files = argv + argc - 3;
        std::cout << "libcodec " << codec_version() << ", " << model.name() << ": " << model.info().sample_rate << " Hz, "
                  << model.bitrate() << " bit/s\n";
        encode(model, files[0], files[1]);
        decode(model, files[1], files[2]);
    } catch (const codec::Error &error) {
        std::cerr << error.what() << " (" << codec_strerror(error.status()) << ")\n";
        return 1;
    } catch (const std::exception &error) {
        std::cerr << error.what() << '\n';
        return 1;
    }
    return 0;
}
