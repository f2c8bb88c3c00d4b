/*
 * Encodes a wav file to a .nac file and decodes that to a wav file: the same bytes as
 *
 *     codec encode -m MODEL IN.wav OUT.nac && codec decode -m MODEL OUT.nac OUT.wav
 *
 * Without a model: that in the box, nano-16k, for speech at 16 kHz.
 *
 * cc transcode.c $(pkg-config --cflags --libs codec) -lm -o transcode
 */
#include <codec.h>

#include "wav.h"

/* Samples a channel that are encoded at once; any number gives the same codes. */
enum { PIECE = 1000 };

static void check(codec_status status, const char *what, const char *text) {
    if (status == CODEC_OK) return;
    fprintf(stderr, "%s: %s (%s)\n", what, text, codec_strerror(status));
    exit(1);
}

static void must(int ok, const char *what) {
    if (ok) return;
    fprintf(stderr, "%s failed\n", what);
    exit(1);
}

static void *allocate(size_t count, size_t size) {
    void *memory = calloc(count + 1, size);
    must(memory != NULL, "allocation");
    return memory;
}

/* A FILE for the library. */
static int64_t file_read(void *user, void *data, size_t len) {
    size_t done = fread(data, 1, len, (FILE *)user);
    return ferror((FILE *)user) ? -1 : (int64_t)done;
}

static int64_t file_write(void *user, const void *data, size_t len) {
    return fwrite(data, 1, len, (FILE *)user) == len ? (int64_t)len : -1;
}

static int64_t file_seek(void *user, int64_t offset, int32_t whence) {
    return fseek((FILE *)user, (long)offset, whence) == 0 ? (int64_t)ftell((FILE *)user) : -1;
}

static codec_io file_io(FILE *file) {
    codec_io io = {0};
    io.struct_size = sizeof io;
    io.user = file;
    io.read = file_read;
    io.write = file_write;
    io.seek = file_seek;
    return io;
}

/* Writes frames, segment by segment where the model has segments. */
static void write_codes(codec_nac_writer *writer, codec_encoder *encoder, const uint16_t *codes, size_t frames,
                        uint32_t codebooks) {
    size_t count = 0, i;
    codec_segment *segments;
    check(codec_encoder_segments(encoder, NULL, 0, &count), "segments", codec_encoder_error(encoder));
    segments = (codec_segment *)allocate(count, sizeof *segments);
    check(codec_encoder_segments(encoder, segments, count, &count), "segments", codec_encoder_error(encoder));
    for (i = 0; i < count; i++) {
        check(codec_nac_writer_begin_segment(writer, segments[i].scale), "write", codec_nac_writer_error(writer));
        check(codec_nac_writer_write(writer, codes, segments[i].frames), "write", codec_nac_writer_error(writer));
        codes += segments[i].frames * codebooks;
    }
    if (count == 0) check(codec_nac_writer_write(writer, codes, frames), "write", codec_nac_writer_error(writer));
    free(segments);
}

static void encode(const codec_model *model, const codec_model_info *info, const char *from, const char *to) {
    wav in;
    codec_encoder *encoder = NULL;
    codec_nac_writer *writer = NULL;
    codec_io io;
    uint16_t *codes;
    size_t at = 0, most = 0, end = 0, frames = 0;
    FILE *file;

    must(wav_read(from, &in) == 0, "reading a wav file of 16-bit PCM");
    must(in.sample_rate == info->sample_rate && in.channels == info->channels, "matching the model's rate and channels");
    file = fopen(to, "w+b");
    must(file != NULL, "opening the .nac file");
    io = file_io(file);
    check(codec_encoder_create(model, NULL, &encoder), "encoder", codec_last_error());
    check(codec_nac_writer_create_io(model, &io, NULL, &writer), "writer", codec_last_error());

    while (at < in.samples) {
        size_t piece = in.samples - at < PIECE ? in.samples - at : PIECE;
        check(codec_encoder_max_frames(encoder, piece, &most), "encode", codec_encoder_error(encoder));
        codes = (uint16_t *)allocate(most * info->codebooks, sizeof *codes);
        check(codec_encoder_push(encoder, in.pcm + at * in.channels, piece, codes, most, &frames), "encode",
              codec_encoder_error(encoder));
        write_codes(writer, encoder, codes, frames, info->codebooks);
        free(codes);
        at += piece;
    }
    check(codec_encoder_max_frames(encoder, 0, &end), "encode", codec_encoder_error(encoder));
    codes = (uint16_t *)allocate(end * info->codebooks, sizeof *codes);
    check(codec_encoder_finish(encoder, codes, end, &frames), "encode", codec_encoder_error(encoder));
    write_codes(writer, encoder, codes, frames, info->codebooks);
    check(codec_nac_writer_finish(writer, in.samples), "write", codec_nac_writer_error(writer));

    free(codes);
    free(in.pcm);
    codec_nac_writer_destroy(writer);
    codec_encoder_destroy(encoder);
    must(fclose(file) == 0, "closing the .nac file");
}

/* Writes as many of these samples as are still due. */
static void emit(FILE *out, const float *pcm, size_t samples, uint32_t channels, uint64_t *due) {
    if (samples > *due) samples = (size_t)*due;
    must(wav_write(out, pcm, samples * channels) == 0, "writing the wav file");
    *due -= samples;
}

static void decode(const codec_model *model, const codec_model_info *info, const char *from, const char *to) {
    codec_nac_reader *reader = NULL;
    codec_decoder *decoder = NULL;
    codec_decoder_options options = {0};
    codec_nac_info head = {0};
    codec_nac_item item = {0};
    codec_io io;
    float *pcm;
    size_t most = 0, samples = 0;
    uint64_t due;
    FILE *file = fopen(from, "rb"), *out = fopen(to, "wb");

    must(file != NULL && out != NULL, "opening the files to decode");
    io = file_io(file);
    check(codec_nac_reader_create_io(&io, NULL, &reader), "reader", codec_last_error());
    check(codec_nac_reader_check_model(reader, model), "reader", codec_nac_reader_error(reader));
    head.struct_size = sizeof head;
    check(codec_nac_reader_get_info(reader, &head), "reader", codec_nac_reader_error(reader));
    must(head.samples < UINT32_MAX / 4, "a length that a wav file can have");
    due = head.samples;
    options.struct_size = sizeof options;
    options.codebooks = head.codebooks;
    options.first_codebook = head.first_codebook;
    check(codec_decoder_create(model, &options, &decoder), "decoder", codec_last_error());
    must(wav_write_header(out, head.sample_rate, head.channels, (uint32_t)due) == 0, "writing the wav file");

    item.struct_size = sizeof item;
    for (;;) {
        check(codec_nac_reader_next(reader, &item), "read", codec_nac_reader_error(reader));
        must(item.kind != CODEC_NAC_LOST, "a file without losses");
        check(codec_decoder_max_samples(decoder, (size_t)item.frames, &most), "decode", codec_decoder_error(decoder));
        pcm = (float *)allocate(most * info->channels, sizeof *pcm);
        if (item.kind == CODEC_NAC_END) {
            check(codec_decoder_finish(decoder, pcm, most, &samples), "decode", codec_decoder_error(decoder));
        } else if (head.segmented) {
            check(codec_decoder_push_segment(decoder, item.codes, (size_t)item.frames, item.scale, pcm, most, &samples),
                  "decode", codec_decoder_error(decoder));
        } else {
            check(codec_decoder_push(decoder, item.codes, (size_t)item.frames, pcm, most, &samples), "decode",
                  codec_decoder_error(decoder));
        }
        emit(out, pcm, samples, info->channels, &due);
        free(pcm);
        if (item.kind == CODEC_NAC_END) break;
    }
    /* What a system drops at the end is silence. */
    must(wav_write(out, NULL, (size_t)due * info->channels) == 0, "writing the wav file");

    codec_decoder_destroy(decoder);
    codec_nac_reader_destroy(reader);
    fclose(file);
    must(fclose(out) == 0, "closing the wav file");
}

int main(int argc, char **argv) {
    codec_model *model = NULL;
    codec_model_info info = {0};
    double bits = 0;
    const char *from = argc == 5 ? argv[1] : "the model in the box";
    char **files;

    if (argc != 4 && argc != 5) {
        fprintf(stderr, "usage: %s [MODEL] IN.wav OUT.nac OUT.wav\n", argv[0]);
        return 2;
    }
    files = argv + argc - 3;
    check(argc == 5 ? codec_model_from_file(from, &model) : codec_model_default(&model), from, codec_last_error());
    info.struct_size = sizeof info;
    check(codec_model_get_info(model, &info), from, codec_last_error());
    check(codec_model_bitrate(model, 0, &bits), from, codec_last_error());
    printf("libcodec %s, %s: %u Hz, %u codebooks, %.0f bit/s\n", codec_version(), codec_model_name(model),
           (unsigned)info.sample_rate, (unsigned)info.codebooks, bits);
    encode(model, &info, files[0], files[1]);
    decode(model, &info, files[1], files[2]);
    check(codec_model_destroy(model), from, codec_last_error());
    return 0;
}
