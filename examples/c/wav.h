/* 16-bit wav files, as much of them as the examples need; C11 and C++17. */
#ifndef EXAMPLE_WAV_H
#define EXAMPLE_WAV_H

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct wav {
    uint32_t sample_rate;
    uint32_t channels;
    /* Samples a channel, interleaved. */
    size_t samples;
    float *pcm;
} wav;

static uint32_t wav_u32(const unsigned char *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint32_t wav_u16(const unsigned char *p) { return (uint32_t)p[0] | (uint32_t)p[1] << 8; }

/* Reads a whole file; 0 if it is one of 16-bit PCM. The caller frees `pcm`. */
static int wav_read(const char *path, wav *out) {
    unsigned char head[16];
    FILE *file = fopen(path, "rb");
    int done = -1;
    memset(out, 0, sizeof *out);
    if (!file) return -1;
    if (fread(head, 1, 12, file) != 12 || memcmp(head, "RIFF", 4) != 0 || memcmp(head + 8, "WAVE", 4) != 0) goto end;
    while (fread(head, 1, 8, file) == 8) {
        uint32_t len = wav_u32(head + 4);
        if (memcmp(head, "fmt ", 4) == 0 && len >= 16) {
            if (fread(head, 1, 16, file) != 16 || wav_u16(head) != 1 || wav_u16(head + 14) != 16) goto end;
            out->channels = wav_u16(head + 2);
            out->sample_rate = wav_u32(head + 4);
            if (out->channels == 0 || fseek(file, (long)(len - 16 + len % 2), SEEK_CUR) != 0) goto end;
        } else if (memcmp(head, "data", 4) == 0 && out->channels > 0) {
            size_t values = len / 2, i;
            unsigned char *bytes = (unsigned char *)malloc(values * 2 + 1);
            out->pcm = (float *)malloc((values + 1) * sizeof(float));
            if (bytes && out->pcm && fread(bytes, 2, values, file) == values) {
                for (i = 0; i < values; i++) {
                    int32_t v = (int32_t)wav_u16(bytes + 2 * i);
                    out->pcm[i] = (float)(v < 32768 ? v : v - 65536) / 32768.0f;
                }
                out->samples = values / out->channels;
                done = 0;
            }
            free(bytes);
            goto end;
        } else if (fseek(file, (long)(len + len % 2), SEEK_CUR) != 0) {
            goto end;
        }
    }
end:
    fclose(file);
    if (done != 0) {
        free(out->pcm);
        out->pcm = NULL;
    }
    return done;
}

/* Writes the header of a file of `samples` samples a channel, with a chunk in reserve as the command line leaves it. */
static int wav_write_header(FILE *file, uint32_t sample_rate, uint32_t channels, uint32_t samples) {
    unsigned char head[80];
    uint32_t bytes = samples * channels * 2;
    const uint32_t fields[] = {4, bytes + 72, 16, 28, 52, 16, 60, sample_rate, 64, sample_rate * channels * 2, 76, bytes};
    size_t i, k;
    memset(head, 0, sizeof head);
    memcpy(head, "RIFF", 4);
    memcpy(head + 8, "WAVEJUNK", 8);
    memcpy(head + 48, "fmt ", 4);
    memcpy(head + 72, "data", 4);
    for (i = 0; i < sizeof fields / sizeof fields[0]; i += 2) {
        for (k = 0; k < 4; k++) head[fields[i] + k] = (unsigned char)(fields[i + 1] >> (8 * k));
    }
    head[56] = 1;
    head[58] = (unsigned char)channels;
    head[68] = (unsigned char)(channels * 2);
    head[70] = 16;
    return fwrite(head, 1, sizeof head, file) == sizeof head ? 0 : -1;
}

/* Writes `values` samples, all channels counted, or so many zeros if `pcm` is null. */
static int wav_write(FILE *file, const float *pcm, size_t values) {
    size_t i;
    for (i = 0; i < values; i++) {
        double v = pcm ? round((double)pcm[i] * 32768.0) : 0.0;
        int32_t n = (int32_t)(v < -32768.0 ? -32768.0 : v > 32767.0 ? 32767.0 : v);
        if (fputc(n & 255, file) == EOF || fputc((n >> 8) & 255, file) == EOF) return -1;
    }
    return 0;
}

#endif
