#ifndef CODEC_H
#define CODEC_H

#include <stddef.h>
#include <stdint.h>

/**
 * @file
 * Neural audio codecs: sound into tokens and back.
 *
 * Everything here is checked before it is used: a null, misaligned, short or overlapping argument, a handle of another
 * kind, a wrong struct_size gives a negative codec_status and changes nothing. What no library can check is the caller's:
 * a pointer that is neither null nor valid for the length given with it, a handle that was destroyed (found out where its
 * memory still tells), a handle used by two threads at once (found out in most cases: CODEC_ERROR_BUSY).
 *
 * Threads. A codec_model is immutable: any number of threads may use it at once, and create encoders and decoders
 * of it. An encoder, decoder, reader or writer belongs to one thread at a time and may move from thread to thread between
 * calls. Only its owner may destroy a handle, when no call with it is under way.
 *
 * Ownership. What a *_create or codec_model_* function puts into its last argument is the caller's, until the *_destroy
 * of its kind. Encoders, decoders and writers keep what they need of their model, so that the model may be destroyed
 * first. Memory given to codec_model_from_memory and codec_nac_reader_create_memory is borrowed: the function says how long.
 *
 * Sound is 32-bit float, interleaved, full scale at +-1, at the model's rate and in its channels. Codes are uint16_t,
 * frame by frame, the codes of a frame side by side. Counts of samples are a channel's, counts of frames are of whole frames.
 *
 * Structs that begin with struct_size grow in later versions. Zero the struct, set struct_size to its sizeof, then set the
 * fields that you need: a field of zero stands for its default.
 *
 * A panic in the library does not leave it: the call returns CODEC_ERROR_INTERNAL, and the handle takes no other call
 * than *_destroy. An allocation that the system refuses ends the process, as it does in any Rust program; max_memory of the options
 * is the limit before that.
 */


/**
 * What the memory of codec_encoder_init and codec_decoder_init must be aligned to, in bytes.
 */
#define CODEC_STATE_ALIGN 64

/**
 * The number of samples or frames is not known.
 */
#define CODEC_UNKNOWN UINT64_MAX

/**
 * For `threads`: as many as the machine has.
 */
#define CODEC_ALL_THREADS UINT32_MAX

/**
 * More threads than this are an error.
 */
#define CODEC_MAX_THREADS 1024

/**
 * Of the header. Another minor version of 0.x, and another major version from 1 on, is another ABI.
 */
#define CODEC_VERSION_MAJOR 0

/**
 * Of the header.
 */
#define CODEC_VERSION_MINOR 1

/**
 * Of the header.
 */
#define CODEC_VERSION_PATCH 0

/**
 * What a call returns: CODEC_OK, or a negative error.
 */
enum codec_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Done.
     */
    CODEC_OK = 0,
    /**
     * A pointer is null that must not be.
     */
    CODEC_ERROR_NULL = -1,
    /**
     * A pointer does not have the alignment of its type.
     */
    CODEC_ERROR_MISALIGNED = -2,
    /**
     * Something that is written overlaps another argument.
     */
    CODEC_ERROR_OVERLAP = -3,
    /**
     * A value is out of its range.
     */
    CODEC_ERROR_ARGUMENT = -4,
    /**
     * A struct_size that this library does not know, or a newer struct with fields set that it does not know.
     */
    CODEC_ERROR_STRUCT_SIZE = -5,
    /**
     * Not a handle of this kind, or destroyed.
     */
    CODEC_ERROR_HANDLE = -6,
    /**
     * Another call with this handle is under way.
     */
    CODEC_ERROR_BUSY = -7,
    /**
     * A buffer of the caller's is too short; nothing was taken or written.
     */
    CODEC_ERROR_BUFFER_TOO_SHORT = -8,
    /**
     * The signal would take more memory than max_memory allows.
     */
    CODEC_ERROR_MEMORY = -9,
    /**
     * A file or a callback failed.
     */
    CODEC_ERROR_IO = -10,
    /**
     * Not a model, damaged, or of another version.
     */
    CODEC_ERROR_MODEL = -11,
    /**
     * This build has no built-in model.
     */
    CODEC_ERROR_NO_DEFAULT_MODEL = -12,
    /**
     * The codes were made with another model.
     */
    CODEC_ERROR_WRONG_MODEL = -13,
    /**
     * The model or the stream cannot do this.
     */
    CODEC_ERROR_UNSUPPORTED = -14,
    /**
     * A sample is NaN or infinite.
     */
    CODEC_ERROR_SAMPLES = -15,
    /**
     * A code is not below its codebook's size, or codes do not fit the model otherwise.
     */
    CODEC_ERROR_CODES = -16,
    /**
     * The signal or file was finished.
     */
    CODEC_ERROR_FINISHED = -17,
    /**
     * A call out of its order.
     */
    CODEC_ERROR_STATE = -18,
    /**
     * Not a .nac file, damaged, cut off, or of a newer version.
     */
    CODEC_ERROR_FORMAT = -19,
    /**
     * The system gives no threads.
     */
    CODEC_ERROR_THREADS = -20,
    /**
     * A bug in the library. The handle takes no other call than its destruction.
     */
    CODEC_ERROR_INTERNAL = -21,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum codec_status codec_status;
#else
typedef int32_t codec_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What an item of a .nac file is.
 */
enum codec_nac_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Frames; in a file with segments, one whole segment.
     */
    CODEC_NAC_FRAMES = 1,
    /**
     * Frames that are not there. Do not fill a gap without a limit: a short hostile file can claim billions.
     */
    CODEC_NAC_LOST = 2,
    /**
     * The end; every later call gives it again.
     */
    CODEC_NAC_END = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum codec_nac_kind codec_nac_kind;
#else
typedef uint32_t codec_nac_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How the weights of a model's networks are held.
 */
enum codec_precision
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * One that this library has no name for.
     */
    CODEC_PRECISION_OTHER = 0,
    /**
     * As they are stored: in 32 bits, and tensors of 16-bit floats as such.
     */
    CODEC_PRECISION_F32 = 1,
    /**
     * In 16-bit floats.
     */
    CODEC_PRECISION_F16 = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum codec_precision codec_precision;
#else
typedef uint32_t codec_precision;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What an encoder or a decoder works on at once, and so when it gives something, and what it keeps of a signal.
 */
enum codec_unit
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * There is none.
     */
    CODEC_UNIT_NONE = 0,
    /**
     * Pieces of any size: it streams, in constant memory.
     */
    CODEC_UNIT_STEP = 1,
    /**
     * Segments of a fixed length that overlap, each with a scale.
     */
    CODEC_UNIT_SEGMENT = 2,
    /**
     * Windows of a fixed length that overlap, whose codes join into one stream.
     */
    CODEC_UNIT_WINDOW = 3,
    /**
     * The whole signal: everything comes at the end, and memory grows with the signal.
     */
    CODEC_UNIT_SIGNAL = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum codec_unit codec_unit;
#else
typedef uint32_t codec_unit;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Where a codec_seek counts from; the numbers are those of SEEK_SET, SEEK_CUR and SEEK_END on all usual systems.
 */
enum codec_whence
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * The start.
     */
    CODEC_SEEK_START = 0,
    /**
     * Where it stands.
     */
    CODEC_SEEK_CURRENT = 1,
    /**
     * The end.
     */
    CODEC_SEEK_END = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum codec_whence codec_whence;
#else
typedef int32_t codec_whence;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Decodes one signal, given in pieces of any size.
 */
typedef struct codec_decoder codec_decoder;

/**
 * Encodes one signal, given in pieces of any size.
 */
typedef struct codec_encoder codec_encoder;

/**
 * A model. Immutable, and shared by any number of threads, encoders and decoders.
 */
typedef struct codec_model codec_model;

/**
 * Reads a .nac file in constant memory.
 */
typedef struct codec_nac_reader codec_nac_reader;

/**
 * Writes a .nac file.
 */
typedef struct codec_nac_writer codec_nac_writer;

/**
 * How to decode.
 */
typedef struct codec_decoder_options {
    /**
     * sizeof(codec_decoder_options).
     */
    size_t struct_size;
    /**
     * Codes a frame; 0: all that the model has, from `first_codebook` on.
     */
    uint32_t codebooks;
    /**
     * The model's codebook of the first code, as codec_nac_info has it; 0: the model's first. A codebook whose codes come several
     * times in a frame counts once.
     */
    uint32_t first_codebook;
    /**
     * Threads to compute with; 0: the calling one. Results do not depend on it.
     */
    uint32_t threads;
    /**
     * For codec_decoder_init: frames that are worked on at once; 0: one. More are faster and take more memory.
     */
    uint32_t step_frames;
    /**
     * 1: `noise_seed` is the seed of the noise that the decoder adds, for models that add some (SNAC), else
     * CODEC_ERROR_UNSUPPORTED; 0: the model's own, which in imported models is no noise.
     */
    uint32_t has_noise_seed;
    /**
     * 0.
     */
    uint32_t reserved;
    /**
     * The same seed and codes give the same samples.
     */
    uint64_t noise_seed;
    /**
     * Bytes that the signal may take beside the model; 0: 4 GiB, and for codec_decoder_init, whose memory is the caller's, no
     * limit.
     */
    uint64_t max_memory;
} codec_decoder_options;

/**
 * How to encode.
 */
typedef struct codec_encoder_options {
    /**
     * sizeof(codec_encoder_options).
     */
    size_t struct_size;
    /**
     * Codes a frame; 0: all that the model has, from `first_codebook` on.
     */
    uint32_t codebooks;
    /**
     * The model's codebook of the first code that is given out; 0: the model's first. A codebook whose codes come several times
     * in a frame counts once.
     */
    uint32_t first_codebook;
    /**
     * Width of the codebook search over residual stages, at most 64; 0 or 1: the greedy search of the published systems.
     */
    uint32_t beam;
    /**
     * Codebooks, from the first on, that are encoded at half the rate; 0: none.
     */
    uint32_t merged_codebooks;
    /**
     * Threads to compute with; 0: the calling one. Results do not depend on it.
     */
    uint32_t threads;
    /**
     * For codec_encoder_init: frames that are worked on at once; 0: one. More are faster and take more memory.
     */
    uint32_t step_frames;
    /**
     * Bytes that the signal may take beside the model; 0: 4 GiB, and for codec_encoder_init, whose memory is the caller's, no
     * limit.
     */
    uint64_t max_memory;
} codec_encoder_options;

/**
 * A segment of the frames that an encoder gave.
 */
typedef struct codec_segment {
    /**
     * Frames of the segment.
     */
    size_t frames;
    /**
     * What its decoded samples are multiplied by.
     */
    float scale;
} codec_segment;

/**
 * What a model is.
 */
typedef struct codec_model_info {
    /**
     * sizeof(codec_model_info), set by the caller.
     */
    size_t struct_size;
    /**
     * Hz.
     */
    uint32_t sample_rate;
    /**
     * Audio channels.
     */
    uint32_t channels;
    /**
     * Samples that a frame stands for.
     */
    uint32_t hop;
    /**
     * Codes of a frame, at most.
     */
    uint32_t codebooks;
    /**
     * 1 if the model has an encoder.
     */
    uint32_t can_encode;
    /**
     * 1 if the model has a decoder and its quantizer an inverse.
     */
    uint32_t can_decode;
    /**
     * Samples of a segment, for a model that cuts signals into segments; else 0.
     */
    uint32_t segment_samples;
    /**
     * Samples from the start of a segment to that of the next; 0 without segments.
     */
    uint32_t segment_stride;
    /**
     * What names the model in .nac files.
     */
    uint8_t fingerprint[16];
    /**
     * A codec_unit: how the encoder takes a signal. Of CODEC_UNIT_STEP, codec_encoder_init takes the model.
     */
    uint32_t encoder_unit;
    /**
     * A codec_unit: how the decoder takes a signal. Of CODEC_UNIT_STEP, codec_decoder_init takes the model.
     */
    uint32_t decoder_unit;
    /**
     * A codec_precision.
     */
    uint32_t precision;
    /**
     * 0.
     */
    uint32_t reserved;
} codec_model_info;

/**
 * How to read a .nac file.
 */
typedef struct codec_nac_reader_options {
    /**
     * sizeof(codec_nac_reader_options).
     */
    size_t struct_size;
    /**
     * 1: pass over damage and report it as CODEC_NAC_LOST; 0: damage is an error.
     */
    uint32_t salvage;
    /**
     * 0.
     */
    uint32_t reserved;
} codec_nac_reader_options;

/**
 * Reads up to `len` bytes to `data`. Returns how many, 0 at the end, or a negative number, which ends the call with
 * CODEC_ERROR_IO.
 */
typedef int64_t (*codec_read)(void *user, void *data, size_t len);

/**
 * Writes up to `len` bytes. Returns how many, at least 1, or a negative number, which ends the call with
 * CODEC_ERROR_IO.
 */
typedef int64_t (*codec_write)(void *user, const void *data, size_t len);

/**
 * Goes to `offset` from where `whence` (a codec_whence) says. Returns the position from the start, or a negative number,
 * which ends the call with CODEC_ERROR_IO.
 */
typedef int64_t (*codec_seek)(void *user, int64_t offset, int32_t whence);

/**
 * A file, socket or memory of the caller's. The functions are called by the thread that calls the library, in that call. They must
 * return (no longjmp, no C++ exception) and must not use the reader or writer they serve.
 */
typedef struct codec_io {
    /**
     * sizeof(codec_io).
     */
    size_t struct_size;
    /**
     * Handed to the functions as it is.
     */
    void *user;
    /**
     * Needed to read.
     */
    codec_read read;
    /**
     * Needed to write.
     */
    codec_write write;
    /**
     * Needed to go to a frame of a file that is read. For a file that is written it lets the header state the number of
     * samples too; without it only the end does.
     */
    codec_seek seek;
} codec_io;

/**
 * The header of a .nac file.
 */
typedef struct codec_nac_info {
    /**
     * sizeof(codec_nac_info), set by the caller.
     */
    size_t struct_size;
    /**
     * Hz.
     */
    uint32_t sample_rate;
    /**
     * Audio channels.
     */
    uint32_t channels;
    /**
     * Samples that a frame stands for.
     */
    uint32_t hop;
    /**
     * Codes of a frame.
     */
    uint32_t codebooks;
    /**
     * Exact samples a channel, or CODEC_UNKNOWN; then the end may tell. A hostile file says anything here: do not size
     * memory by it.
     */
    uint64_t samples;
    /**
     * 1 if frames come in segments, each with a scale.
     */
    uint32_t segmented;
    /**
     * The model's codebook of the first code of a frame: what `first_codebook` of a decoder's options must be.
     */
    uint32_t first_codebook;
    /**
     * The model that made the codes.
     */
    uint8_t fingerprint[16];
} codec_nac_info;

/**
 * What comes out of a .nac file.
 */
typedef struct codec_nac_item {
    /**
     * sizeof(codec_nac_item), set by the caller.
     */
    size_t struct_size;
    /**
     * A codec_nac_kind.
     */
    uint32_t kind;
    /**
     * The segment's scale; 1 in a file without segments.
     */
    float scale;
    /**
     * The first frame, from the start of the file; at the end, the number of frames.
     */
    uint64_t first_frame;
    /**
     * Frames; of a loss, CODEC_UNKNOWN if all to the end are lost; 0 at the end.
     */
    uint64_t frames;
    /**
     * frames * codebooks codes, each below its codebook's size in the file's header. They belong to the reader and stay until the next
     * call with it. Null if this is no CODEC_NAC_FRAMES.
     */
    const uint16_t *codes;
    /**
     * At the end, the exact samples a channel, or CODEC_UNKNOWN; CODEC_UNKNOWN before.
     */
    uint64_t samples;
} codec_nac_item;

/**
 * How to write a .nac file.
 */
typedef struct codec_nac_writer_options {
    /**
     * sizeof(codec_nac_writer_options).
     */
    size_t struct_size;
    /**
     * Codes a frame; 0: all that the model has, from `first_codebook` on.
     */
    uint32_t codebooks;
    /**
     * The model's codebook of the first code, as in the options of the encoder; 0: the model's first.
     */
    uint32_t first_codebook;
    /**
     * Frames of a chunk, at most 65535; 0: about two seconds. A chunk is what is lost by one damaged byte.
     */
    uint32_t chunk_frames;
    /**
     * 0.
     */
    uint32_t reserved;
    /**
     * Exact samples a channel, if they are known before the first frame; else 0. They go into the header.
     */
    uint64_t samples;
} codec_nac_writer_options;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Makes a decoder; `options` may be null.
 */
codec_status codec_decoder_create(const struct codec_model *model,
                                  const struct codec_decoder_options *options,
                                  struct codec_decoder **decoder);

/**
 * Bytes that codec_decoder_init needs for these options, which may be null; 0 on an error, of which codec_last_error tells.
 */
size_t codec_decoder_state_size(const struct codec_model *model,
                                const struct codec_decoder_options *options);

/**
 * Makes a decoder in memory of the caller's, as codec_encoder_init makes an encoder.
 */
codec_status codec_decoder_init(void *memory,
                                size_t size,
                                const struct codec_model *model,
                                const struct codec_decoder_options *options,
                                struct codec_decoder **decoder);

/**
 * Ends a decoder; null is none. Of one in memory of the caller's, it marks the memory and nothing else.
 */
codec_status codec_decoder_destroy(struct codec_decoder *decoder);

/**
 * The text of the decoder's last error; empty if there was none. It stays until the next call with the decoder. Never null.
 */
const char *codec_decoder_error(const struct codec_decoder *decoder);

/**
 * The most samples (a channel) that the next push of `frames` frames can give, or, of 0 frames, the next
 * codec_decoder_finish: what their `capacity` must be at least. For a model that cuts signals it is the same for every
 * segment.
 */
codec_status codec_decoder_max_samples(struct codec_decoder *decoder,
                                       size_t frames,
                                       size_t *samples);

/**
 * Takes frames and gives the samples that are ready, interleaved: `*samples` of every channel. `capacity` is a channel's, at least
 * codec_decoder_max_samples.
 *
 * After CODEC_ERROR_MEMORY the signal cannot go on: reset. Other errors take nothing.
 */
codec_status codec_decoder_push(struct codec_decoder *decoder,
                                const uint16_t *codes,
                                size_t frames,
                                float *pcm,
                                size_t capacity,
                                size_t *samples);

/**
 * As codec_decoder_push, of a whole segment and its scale, for a model that cuts signals into segments.
 */
codec_status codec_decoder_push_segment(struct codec_decoder *decoder,
                                        const uint16_t *codes,
                                        size_t frames,
                                        float scale,
                                        float *pcm,
                                        size_t capacity,
                                        size_t *samples);

/**
 * Ends the signal and gives its last samples. `capacity` is at least codec_decoder_max_samples of 0 frames.
 */
codec_status codec_decoder_finish(struct codec_decoder *decoder,
                                  float *pcm,
                                  size_t capacity,
                                  size_t *samples);

/**
 * Forgets the signal: the next frames start a new one.
 */
codec_status codec_decoder_reset(struct codec_decoder *decoder);

/**
 * Makes an encoder; `options` may be null.
 */
codec_status codec_encoder_create(const struct codec_model *model,
                                  const struct codec_encoder_options *options,
                                  struct codec_encoder **encoder);

/**
 * Bytes that codec_encoder_init needs for these options, which may be null; 0 on an error, of which codec_last_error tells.
 */
size_t codec_encoder_state_size(const struct codec_model *model,
                                const struct codec_encoder_options *options);

/**
 * Makes an encoder in memory of the caller's: `size` bytes, at least codec_encoder_state_size for the same options, at a multiple of
 * CODEC_STATE_ALIGN. `*encoder` gets the address of the memory. No call with it allocates, unless it fails.
 *
 * The memory is plain and position independent: between calls it may be copied, also to continue twice from one place, or
 * simply be forgotten. The model must stay until then. It computes with the calling thread. For models that take a
 * signal in pieces; else CODEC_ERROR_UNSUPPORTED.
 */
codec_status codec_encoder_init(void *memory,
                                size_t size,
                                const struct codec_model *model,
                                const struct codec_encoder_options *options,
                                struct codec_encoder **encoder);

/**
 * Ends an encoder; null is none. Of one in memory of the caller's, it marks the memory and nothing else.
 */
codec_status codec_encoder_destroy(struct codec_encoder *encoder);

/**
 * The text of the encoder's last error; empty if there was none. It stays until the next call with the encoder. Never null.
 */
const char *codec_encoder_error(const struct codec_encoder *encoder);

/**
 * The most frames that the next codec_encoder_push of `samples` samples can give, or, of 0 samples, the next
 * codec_encoder_finish: what their `capacity` must be at least.
 */
codec_status codec_encoder_max_frames(struct codec_encoder *encoder, size_t samples, size_t *frames);

/**
 * Takes `samples` samples of every channel, interleaved, and gives the frames that are ready: `*frames` of them, each of as many codes as
 * the encoder was made for. `capacity` is in frames, at least codec_encoder_max_frames.
 *
 * After CODEC_ERROR_MEMORY the signal cannot go on: reset. Other errors take nothing.
 */
codec_status codec_encoder_push(struct codec_encoder *encoder,
                                const float *pcm,
                                size_t samples,
                                uint16_t *codes,
                                size_t capacity,
                                size_t *frames);

/**
 * Ends the signal and gives its last frames. `capacity` is at least codec_encoder_max_frames of 0 samples.
 */
codec_status codec_encoder_finish(struct codec_encoder *encoder,
                                  uint16_t *codes,
                                  size_t capacity,
                                  size_t *frames);

/**
 * The segments that the frames of the last push or finish belong to, for a model that cuts signals into segments; none for
 * others. `count` gets how many there are; with a capacity of 0, only that.
 */
codec_status codec_encoder_segments(struct codec_encoder *encoder,
                                    struct codec_segment *segments,
                                    size_t capacity,
                                    size_t *count);

/**
 * Forgets the signal: the next samples start a new one.
 */
codec_status codec_encoder_reset(struct codec_encoder *encoder);

/**
 * The text of the last error of this thread, for calls that have no handle yet, such as the creation of one; empty if there
 * was none. It stays until the next error on this thread. Never null.
 */
const char *codec_last_error(void);

/**
 * Opens a model file or a deploy image, which is mapped: it must not be changed while the model, or an encoder, decoder or writer of it, is
 * there. `path` is UTF-8 on Windows, and bytes as the system takes them elsewhere.
 */
codec_status codec_model_from_file(const char *path,
                                   struct codec_model **model);

/**
 * Takes a model that lies in memory: a deploy image at a multiple of 8 bytes (64 are faster), whose weights are used where they
 * lie, or a model file of any alignment, whose weights are packed when first used. The bytes must stay as they are until the
 * model and every encoder, decoder and writer of it are destroyed.
 */
codec_status codec_model_from_memory(const void *data,
                                     size_t len,
                                     struct codec_model **model);

/**
 * The model in the box, nano-16k, for speech at 16 kHz. A build without it: CODEC_ERROR_NO_DEFAULT_MODEL.
 */
codec_status codec_model_default(struct codec_model **model);

/**
 * Ends a model; null is none. Encoders, decoders and writers of it go on.
 */
codec_status codec_model_destroy(struct codec_model *model);

/**
 * The name of the codec; it belongs to the model. Null if this is no model.
 */
const char *codec_model_name(const struct codec_model *model);

/**
 * Rates, sizes and what the model can do. The first call plans encoder and decoder, which packs their weights.
 */
codec_status codec_model_get_info(const struct codec_model *model,
                                  struct codec_model_info *info);

/**
 * Entries of the codebook of each of a frame's codes, up to `capacity`; `count` gets how many there are. With a capacity of 0, only
 * that.
 */
codec_status codec_model_codebook_sizes(const struct codec_model *model,
                                        uint32_t *sizes,
                                        size_t capacity,
                                        size_t *count);

/**
 * The numbers of codebooks that the model's publisher offers, as codec_model_codebook_sizes.
 */
codec_status codec_model_codebook_choices(const struct codec_model *model,
                                          uint32_t *choices,
                                          size_t capacity,
                                          size_t *count);

/**
 * Bits a second of `codebooks` codes a frame; 0: all that the model has.
 */
codec_status codec_model_bitrate(const struct codec_model *model,
                                 uint32_t codebooks,
                                 double *bits_per_second);

/**
 * The algorithmic delay from a sample's arrival at the encoder to its leaving the decoder, in samples: a hop, and what
 * the networks look ahead. CODEC_ERROR_UNSUPPORTED for a model that needs whole signals or segments. Plans encoder and decoder.
 */
codec_status codec_model_delay(const struct codec_model *model,
                               double *samples);

/**
 * Reads a file that lies in memory, from where it is: the bytes must stay until the reader is destroyed. `options` may
 * be null. Reads the header.
 */
codec_status codec_nac_reader_create_memory(const void *data,
                                            size_t len,
                                            const struct codec_nac_reader_options *options,
                                            struct codec_nac_reader **reader);

/**
 * Reads a file by callbacks; `io` itself is copied, and `options` may be null. Reads the header.
 */
codec_status codec_nac_reader_create_io(const struct codec_io *io,
                                        const struct codec_nac_reader_options *options,
                                        struct codec_nac_reader **reader);

/**
 * Ends a reader; null is none.
 */
codec_status codec_nac_reader_destroy(struct codec_nac_reader *reader);

/**
 * The text of the reader's last error; empty if there was none. It stays until the next call with the reader. Never null.
 */
const char *codec_nac_reader_error(const struct codec_nac_reader *reader);

/**
 * What the header says.
 */
codec_status codec_nac_reader_get_info(struct codec_nac_reader *reader, struct codec_nac_info *info);

/**
 * Whether the model made this file: CODEC_OK or CODEC_ERROR_WRONG_MODEL. A decoder of the model decodes it if `codebooks` and
 * `first_codebook` of its options are those of codec_nac_info.
 */
codec_status codec_nac_reader_check_model(struct codec_nac_reader *reader,
                                          const struct codec_model *model);

/**
 * The next item. After CODEC_ERROR_FORMAT or CODEC_ERROR_IO the file cannot be read on.
 */
codec_status codec_nac_reader_next(struct codec_nac_reader *reader, struct codec_nac_item *item);

/**
 * Goes to a frame: the next frames begin with it, or with the first after it that is there. In a file with segments they
 * begin with the first segment that starts there or after it; the rest of the one before comes out as CODEC_NAC_LOST. By
 * callbacks it needs `seek`; else CODEC_ERROR_UNSUPPORTED. A decoder is reset by its owner.
 */
codec_status codec_nac_reader_seek(struct codec_nac_reader *reader,
                                   uint64_t frame);

/**
 * What a status means, in a few words; never null. The last error of a handle says more.
 */
const char *codec_strerror(int32_t status);

/**
 * The version of the library that is loaded, such as "0.1.0".
 */
const char *codec_version(void);

/**
 * The same as a number: major * 65536 + minor * 256 + patch.
 */
uint32_t codec_version_number(void);

/**
 * Writes a file for codes of this model to memory of the writer's; codec_nac_writer_data gives it. `options` may be null.
 */
codec_status codec_nac_writer_create_memory(const struct codec_model *model,
                                            const struct codec_nac_writer_options *options,
                                            struct codec_nac_writer **writer);

/**
 * Writes a file for codes of this model by callbacks; `io` itself is copied, and `options` may be null. Writes the header.
 */
codec_status codec_nac_writer_create_io(const struct codec_model *model,
                                        const struct codec_io *io,
                                        const struct codec_nac_writer_options *options,
                                        struct codec_nac_writer **writer);

/**
 * Ends a writer; null is none. A file that was not finished stays without its end.
 */
codec_status codec_nac_writer_destroy(struct codec_nac_writer *writer);

/**
 * The text of the writer's last error; empty if there was none. It stays until the next call with the writer. Never null.
 */
const char *codec_nac_writer_error(const struct codec_nac_writer *writer);

/**
 * Begins a segment, for a model that cuts signals: the frames that follow have this scale.
 */
codec_status codec_nac_writer_begin_segment(struct codec_nac_writer *writer, float scale);

/**
 * Takes frames. A code out of range is an error, and then none of them is taken.
 */
codec_status codec_nac_writer_write(struct codec_nac_writer *writer, const uint16_t *codes, size_t frames);

/**
 * Says that frames were lost before they came here.
 */
codec_status codec_nac_writer_lost(struct codec_nac_writer *writer, uint32_t frames);

/**
 * Writes out what was taken, however little: all frames so far can then be read by others.
 */
codec_status codec_nac_writer_flush(struct codec_nac_writer *writer);

/**
 * Ends the file. `samples` is the exact number a channel of the signal that was encoded, or CODEC_UNKNOWN. If the options stated
 * another number, it is CODEC_ERROR_ARGUMENT, and the file is not ended.
 */
codec_status codec_nac_writer_finish(struct codec_nac_writer *writer,
                                     uint64_t samples);

/**
 * The bytes of a finished file of codec_nac_writer_create_memory. They belong to the writer and stay until it is destroyed.
 */
codec_status codec_nac_writer_data(struct codec_nac_writer *writer,
                                   const void **data,
                                   size_t *len);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* CODEC_H */
