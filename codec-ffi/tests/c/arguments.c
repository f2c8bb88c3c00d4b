/* Wrong arguments from C: every one is an error, no checker finds anything, and states in memory of the caller's work. */
#include <codec.h>

#include <math.h>
#include <stdalign.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures = 0;

#define EXPECT(status, call)                                                                                     \
    do {                                                                                                         \
        codec_status got_ = (call);                                                                              \
        if (got_ != (status)) {                                                                                  \
            fprintf(stderr, "%s:%d: %s gave %d (%s)\n", __FILE__, __LINE__, #call, (int)got_, codec_last_error()); \
            failures++;                                                                                          \
        }                                                                                                        \
    } while (0)

#define TRUE(what)                                                          \
    do {                                                                    \
        if (!(what)) {                                                      \
            fprintf(stderr, "%s:%d: not %s\n", __FILE__, __LINE__, #what);  \
            failures++;                                                     \
        }                                                                   \
    } while (0)

enum { SAMPLES = 4000, FRAMES = 400, BOOKS = 3, ROOM = 24000 };

static float pcm[SAMPLES], out[ROOM], again[ROOM];
static uint16_t codes[FRAMES * BOOKS];
static alignas(CODEC_STATE_ALIGN) unsigned char memory[1 << 18], moved[1 << 18];

static int64_t fails(void *user, const void *data, size_t len) {
    (void)data;
    (void)len;
    return --*(int *)user < 0 ? -7 : (int64_t)len;
}

/* Not from the library: a byte further than a type may lie. */
#define OFF(type, pointer) ((type)(void *)((unsigned char *)(pointer) + 1))

static void arguments(codec_model *model) {
    codec_model *none = NULL;
    codec_encoder *encoder = NULL;
    codec_decoder *decoder = NULL;
    codec_encoder_options options = {0};
    codec_model_info info = {0};
    size_t n = 7, most = 0, frames = 0;

    EXPECT(CODEC_ERROR_NULL, codec_model_from_file(NULL, &none));
    EXPECT(CODEC_ERROR_NULL, codec_encoder_create(NULL, NULL, &encoder));
    EXPECT(CODEC_ERROR_NULL, codec_encoder_create(model, NULL, NULL));
    EXPECT(CODEC_ERROR_STRUCT_SIZE, codec_encoder_create(model, &options, &encoder));
    options.struct_size = sizeof options - 1;
    EXPECT(CODEC_ERROR_STRUCT_SIZE, codec_encoder_create(model, &options, &encoder));
    options.struct_size = sizeof options;
    options.codebooks = 99;
    EXPECT(CODEC_ERROR_ARGUMENT, codec_encoder_create(model, &options, &encoder));
    TRUE(encoder == NULL && strstr(codec_last_error(), "99") != NULL);
    options.codebooks = 0;
    EXPECT(CODEC_OK, codec_encoder_create(model, &options, &encoder));
    EXPECT(CODEC_OK, codec_decoder_create(model, NULL, &decoder));
    EXPECT(CODEC_ERROR_STRUCT_SIZE, codec_model_get_info(model, &info));
    info.struct_size = sizeof info;
    EXPECT(CODEC_OK, codec_model_get_info(model, &info));
    TRUE(info.codebooks == BOOKS && info.sample_rate == 8000);

    EXPECT(CODEC_OK, codec_encoder_max_frames(encoder, SAMPLES, &most));
    TRUE(most <= FRAMES);
    EXPECT(CODEC_ERROR_NULL, codec_encoder_push(encoder, NULL, SAMPLES, codes, FRAMES, &n));
    EXPECT(CODEC_ERROR_NULL, codec_encoder_push(encoder, pcm, SAMPLES, NULL, FRAMES, &n));
    EXPECT(CODEC_ERROR_NULL, codec_encoder_push(encoder, pcm, SAMPLES, codes, FRAMES, NULL));
    EXPECT(CODEC_ERROR_MISALIGNED, codec_encoder_push(encoder, OFF(float *, pcm), SAMPLES - 1, codes, FRAMES, &n));
    EXPECT(CODEC_ERROR_MISALIGNED, codec_encoder_push(encoder, pcm, SAMPLES, OFF(uint16_t *, codes), FRAMES - 1, &n));
    EXPECT(CODEC_ERROR_BUFFER_TOO_SHORT, codec_encoder_push(encoder, pcm, SAMPLES, codes, most - 1, &n));
    EXPECT(CODEC_ERROR_ARGUMENT, codec_encoder_push(encoder, pcm, SIZE_MAX, codes, FRAMES, &n));
    EXPECT(CODEC_ERROR_OVERLAP, codec_encoder_push(encoder, pcm, SAMPLES, (uint16_t *)(void *)pcm, FRAMES, &n));
    EXPECT(CODEC_ERROR_OVERLAP, codec_encoder_push(encoder, pcm, SAMPLES, codes, FRAMES, (size_t *)(void *)encoder));
    TRUE(n == 7);
    pcm[9] = NAN;
    EXPECT(CODEC_ERROR_SAMPLES, codec_encoder_push(encoder, pcm, SAMPLES, codes, FRAMES, &n));
    TRUE(strstr(codec_encoder_error(encoder), "sample 9") != NULL);
    pcm[9] = 0.0f;
    EXPECT(CODEC_ERROR_HANDLE, codec_encoder_push((codec_encoder *)(void *)decoder, pcm, SAMPLES, codes, FRAMES, &n));
    EXPECT(CODEC_ERROR_HANDLE, codec_encoder_destroy((codec_encoder *)(void *)model));
    EXPECT(CODEC_OK, codec_encoder_push(encoder, pcm, SAMPLES, codes, FRAMES, &frames));

    codes[0] = 64;
    EXPECT(CODEC_ERROR_CODES, codec_decoder_push(decoder, codes, frames, out, ROOM, &n));
    codes[0] = 0;
    EXPECT(CODEC_ERROR_OVERLAP, codec_decoder_push(decoder, codes, frames, (float *)(void *)codes, 300, &n));
    EXPECT(CODEC_ERROR_UNSUPPORTED, codec_decoder_push_segment(decoder, codes, frames, 1.0f, out, ROOM, &n));
    EXPECT(CODEC_OK, codec_decoder_push(decoder, codes, frames, out, ROOM, &n));
    EXPECT(CODEC_OK, codec_decoder_finish(decoder, out, ROOM, &n));
    EXPECT(CODEC_ERROR_FINISHED, codec_decoder_finish(decoder, out, ROOM, &n));
    EXPECT(CODEC_OK, codec_decoder_destroy(decoder));
    EXPECT(CODEC_OK, codec_encoder_destroy(encoder));
    EXPECT(CODEC_OK, codec_encoder_destroy(NULL));
    EXPECT(CODEC_OK, codec_model_default(&none));
    EXPECT(CODEC_OK, codec_model_destroy(none));
}

static void files(codec_model *model) {
    codec_nac_writer *writer = NULL;
    codec_nac_reader *reader = NULL;
    codec_nac_item item = {0};
    codec_io io = {0};
    const void *data = NULL;
    unsigned char *copy;
    size_t len = 0, cut;
    int left = 1;

    EXPECT(CODEC_ERROR_STRUCT_SIZE, codec_nac_writer_create_io(model, &io, NULL, &writer));
    io.struct_size = sizeof io;
    EXPECT(CODEC_ERROR_NULL, codec_nac_writer_create_io(model, &io, NULL, &writer));
    io.user = &left;
    io.write = fails;
    EXPECT(CODEC_OK, codec_nac_writer_create_io(model, &io, NULL, &writer));
    EXPECT(CODEC_OK, codec_nac_writer_write(writer, codes, 1));
    EXPECT(CODEC_ERROR_IO, codec_nac_writer_finish(writer, 40));
    TRUE(strstr(codec_nac_writer_error(writer), "-7") != NULL);
    EXPECT(CODEC_ERROR_IO, codec_nac_writer_write(writer, codes, 1));
    EXPECT(CODEC_OK, codec_nac_writer_destroy(writer));

    EXPECT(CODEC_OK, codec_nac_writer_create_memory(model, NULL, &writer));
    EXPECT(CODEC_OK, codec_nac_writer_write(writer, codes, 100));
    EXPECT(CODEC_ERROR_STATE, codec_nac_writer_data(writer, &data, &len));
    EXPECT(CODEC_OK, codec_nac_writer_finish(writer, SAMPLES));
    EXPECT(CODEC_OK, codec_nac_writer_data(writer, &data, &len));
    item.struct_size = sizeof item;
    for (cut = 0; cut <= len; cut++) {
        /* Of exactly the size, so that a checker sees the first byte past it. */
        codec_status status;
        copy = (unsigned char *)malloc(cut > 0 ? cut : 1);
        if (!copy) abort();
        memcpy(copy, data, cut);
        status = codec_nac_reader_create_memory(copy, cut, NULL, &reader);
        while (status == CODEC_OK) {
            status = codec_nac_reader_next(reader, &item);
            if (status == CODEC_OK && item.kind == CODEC_NAC_END) break;
        }
        TRUE(status == (cut == len ? CODEC_OK : CODEC_ERROR_FORMAT));
        EXPECT(CODEC_OK, codec_nac_reader_destroy(reader));
        free(copy);
    }
    EXPECT(CODEC_OK, codec_nac_writer_destroy(writer));
}

static void placed(codec_model *model) {
    codec_decoder *decoder = NULL, *heap = NULL;
    size_t size = codec_decoder_state_size(model, NULL), n = 0, total = 0, expected = 0, i;

    TRUE(size > 0 && size < sizeof memory);
    EXPECT(CODEC_ERROR_MISALIGNED, codec_decoder_init(memory + 8, size, model, NULL, &decoder));
    EXPECT(CODEC_ERROR_BUFFER_TOO_SHORT, codec_decoder_init(memory, size - 1, model, NULL, &decoder));
    EXPECT(CODEC_OK, codec_decoder_init(memory, size, model, NULL, &decoder));
    TRUE((void *)decoder == (void *)memory);
    /* Frame by frame, from one place to the other, the old one overwritten. */
    for (i = 0; i < 20; i++) {
        EXPECT(CODEC_OK, codec_decoder_push(decoder, codes + i * BOOKS, 1, out + total, ROOM - total, &n));
        total += n;
        decoder = (codec_decoder *)(void *)((void *)decoder == (void *)memory ? moved : memory);
        memcpy(decoder, (void *)decoder == (void *)memory ? moved : memory, size);
        memset((void *)decoder == (void *)memory ? moved : memory, 0xa5, size);
    }
    EXPECT(CODEC_OK, codec_decoder_finish(decoder, out + total, ROOM - total, &n));
    total += n;
    EXPECT(CODEC_OK, codec_decoder_create(model, NULL, &heap));
    EXPECT(CODEC_OK, codec_decoder_push(heap, codes, 20, again, ROOM, &expected));
    EXPECT(CODEC_OK, codec_decoder_finish(heap, again + expected, ROOM - expected, &n));
    TRUE(total == expected + n && memcmp(out, again, total * sizeof *out) == 0);
    EXPECT(CODEC_OK, codec_decoder_destroy(heap));
    EXPECT(CODEC_OK, codec_decoder_destroy(decoder));
    EXPECT(CODEC_ERROR_HANDLE, codec_decoder_reset(decoder));
}

int main(int argc, char **argv) {
    codec_model *model = NULL;
    size_t i;

    if (argc != 2) return 2;
    for (i = 0; i < SAMPLES; i++) pcm[i] = (float)((i * 37) % 101) / 101.0f - 0.5f;
    EXPECT(CODEC_ERROR_IO, codec_model_from_file("/no/such/model", &model));
    EXPECT(CODEC_ERROR_MODEL, codec_model_from_memory(pcm, sizeof pcm, &model));
    EXPECT(CODEC_OK, codec_model_from_file(argv[1], &model));
    TRUE(codec_version_number() == (CODEC_VERSION_MAJOR << 16 | CODEC_VERSION_MINOR << 8 | CODEC_VERSION_PATCH));
    TRUE(strcmp(codec_strerror(12345), "unknown error") == 0);
    if (model) {
        arguments(model);
        files(model);
        placed(model);
        EXPECT(CODEC_OK, codec_model_destroy(model));
    }
    printf("%d failures\n", failures);
    return failures != 0;
}
