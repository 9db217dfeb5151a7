/*
 * The descriptors are a FileDescriptorSet; files and symbols are found by walking it, which is
 * short.
 *
 * Numbers of fields are those of descriptor.proto: a set's files are 1; a file's name 1, package 2,
 * messages 4, enums 5, services 6; a message's name 1, fields 2, nested messages 3, enums 4; a
 * service's name 1, methods 2.
 */
#include "api/grpc_reflection.h"

#include "api/grpc_json.h"
#include "descriptors.h"
#include "reflection_v1.pb-c.h"

#define REQUEST_BYTES_MAX 4096
#define NAME_BYTES_MAX 256

/* The next field of a message with only strings, messages and numbers; false at its end. */
static bool next_field(struct bytes *in, uint32_t *number, struct bytes *value)
{
    while (in->size > 0) {
        uint64_t words[2] = { 0, 0 }; /* Tag, and number or size. */
        for (int i = 0; i < 2; i++) {
            for (unsigned shift = 0; in->size > 0 && shift < 64; shift += 7) {
                const uint8_t byte = (uint8_t)*in->data++;
                in->size--;
                words[i] |= (uint64_t)(byte & 0x7f) << shift;
                if (byte < 0x80) {
                    break;
                }
            }
        }
        *number = (uint32_t)(words[0] >> 3);
        if ((words[0] & 7) == 2 && words[1] > in->size) {
            break; /* It is a text, and no message. */
        }
        if ((words[0] & 7) == 2) {
            *value = (struct bytes){ in->data, (size_t)words[1] };
            in->data += words[1];
            in->size -= (size_t)words[1];
            return true;
        }
    }
    return false;
}

static struct bytes first_field(struct bytes in, uint32_t wanted)
{
    uint32_t number = 0;
    struct bytes value = { NULL, 0 };
    while (next_field(&in, &number, &value)) {
        if (number == wanted) {
            return value;
        }
    }
    return (struct bytes){ "", 0 };
}

/* True when `symbol` is `name`, or lies below it: then *rest is what follows the dot. */
static bool enters(struct bytes symbol, struct bytes name, struct bytes *rest)
{
    if (symbol.size < name.size || memcmp(symbol.data, name.data, name.size) != 0) {
        return false;
    }
    *rest = (struct bytes){ symbol.data + name.size, symbol.size - name.size };
    if (rest->size == 0) {
        return true;
    }
    if (rest->data[0] != '.') {
        return false;
    }
    rest->data++;
    rest->size--;
    return rest->size > 0;
}

/* What of the children of a message, service or enum has names.  Those of number 2 (fields,
 * methods, values) have no such children themselves: what they hold instead are texts. */
static bool holds(struct bytes item, struct bytes rest)
{
    uint32_t number = 0;
    struct bytes child = { NULL, 0 };
    struct bytes below;
    while (next_field(&item, &number, &child)) {
        if (number >= 2 && number <= 4 && enters(rest, first_field(child, 1), &below) &&
            (below.size == 0 || (number > 2 && holds(child, below)))) {
            return true;
        }
    }
    return false;
}

static bool file_holds(struct bytes file, struct bytes symbol)
{
    struct bytes rest;
    struct bytes below;
    uint32_t number = 0;
    struct bytes item = { NULL, 0 };
    if (!enters(symbol, first_field(file, 2), &rest) || rest.size == 0) {
        return false;
    }
    while (next_field(&file, &number, &item)) {
        if (number >= 4 && number <= 6 && enters(rest, first_field(item, 1), &below) &&
            (below.size == 0 || holds(item, below))) {
            return true;
        }
    }
    return false;
}

static struct bytes descriptors(void)
{
    return (struct bytes){ (const char *)proto_descriptors,
                           (size_t)(proto_descriptors_end - proto_descriptors) };
}

typedef bool match_fn(struct bytes file, struct bytes wanted);

static bool has_name(struct bytes file, struct bytes wanted)
{
    return bytes_equal(first_field(file, 1), wanted);
}

static struct bytes find_file(match_fn *matches, struct bytes wanted)
{
    struct bytes set = descriptors();
    uint32_t number = 0;
    struct bytes file = { NULL, 0 };
    while (next_field(&set, &number, &file)) {
        if (matches(file, wanted)) {
            return file;
        }
    }
    return (struct bytes){ NULL, 0 };
}

/* Adds "package.Service" of every service. */
static void list_services(struct buffer *json)
{
    struct bytes set = descriptors();
    uint32_t number = 0;
    struct bytes file = { NULL, 0 };
    struct bytes item = { NULL, 0 };
    char name[NAME_BYTES_MAX];
    while (next_field(&set, &number, &file)) {
        const struct bytes package = first_field(file, 2);
        struct bytes rest = file;
        while (next_field(&rest, &number, &item)) {
            if (number == 6) {
                const struct bytes service = first_field(item, 1);
                (void)snprintf(name, sizeof name, "%.*s.%.*s", (int)package.size, package.data,
                               (int)service.size, service.data);
                json_comma(json);
                buffer_text(json, "{\"name\":");
                json_string(json, name);
                buffer_char(json, '}');
            }
        }
    }
}

/* --- Answers --- */

#define FILE_RESPONSE GRPC__REFLECTION__V1__FILE_DESCRIPTOR_RESPONSE__INIT
#define ERROR_RESPONSE GRPC__REFLECTION__V1__ERROR_RESPONSE__INIT

typedef Grpc__Reflection__V1__ServerReflectionRequest reflection_request;
typedef Grpc__Reflection__V1__ServerReflectionResponse reflection_response;

/* One request of the stream at a time: what it takes is freed when its answer has left. */
struct reading {
    struct arena_disposable close;
    struct arena arena;
    char request[REQUEST_BYTES_MAX];
    size_t size;
};

static struct arena *arena_of(struct grpc_call *grpc)
{
    return &((struct reading *)grpc->user)->arena;
}

static bool say(struct grpc_call *grpc, const reflection_response *answer)
{
    const struct bytes packed = grpc_message_write(&answer->base, arena_of(grpc));
    if (packed.data == NULL) {
        return false;
    }
    grpc_send(grpc, &packed, 1);
    grpc_pause(grpc);
    return true;
}

static bool say_error(struct grpc_call *grpc, reflection_response *answer, enum weir_status status,
                      const char *text)
{
    Grpc__Reflection__V1__ErrorResponse error = ERROR_RESPONSE;
    error.error_code = weir_status_grpc(status);
    error.error_message = (char *)(uintptr_t)text; /* Only read. */
    answer->message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ERROR_RESPONSE;
    answer->error_response = &error;
    return say(grpc, answer);
}

static bool say_file(struct grpc_call *grpc, reflection_response *answer, struct bytes file)
{
    Grpc__Reflection__V1__FileDescriptorResponse response = FILE_RESPONSE;
    ProtobufCBinaryData data = { file.size, (uint8_t *)(uintptr_t)file.data };
    if (file.data == NULL) {
        return say_error(grpc, answer, WEIR_ENOENT, "there is no such file or symbol");
    }
    response.n_file_descriptor_proto = 1;
    response.file_descriptor_proto = &data;
    answer->message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_FILE_DESCRIPTOR_RESPONSE;
    answer->file_descriptor_response = &response;
    return say(grpc, answer);
}

static bool say_services(struct grpc_call *grpc, reflection_response *answer)
{
    struct buffer json;
    yyjson_doc *doc = NULL;
    ProtobufCMessage *list = grpc_message_create(
        &grpc__reflection__v1__list_service_response__descriptor, arena_of(grpc));
    buffer_init(&json, 65536);
    buffer_text(&json, "{\"service\":[");
    list_services(&json);
    buffer_text(&json, "]}");
    const bool good =
        list != NULL && !json.failed &&
        json_read((struct bytes){ json.data, json.size }, &doc, NULL) == WEIR_OK &&
        grpc_json_read(yyjson_doc_get_root(doc), NULL, list, arena_of(grpc), NULL) == WEIR_OK;
    yyjson_doc_free(doc);
    buffer_finish(&json);
    if (!good) {
        return false;
    }
    answer->message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_LIST_SERVICES_RESPONSE;
    answer->list_services_response = (Grpc__Reflection__V1__ListServiceResponse *)(void *)list;
    return say(grpc, answer);
}

/* Of a message that is known: none has any. */
static bool say_no_extensions(struct grpc_call *grpc, reflection_response *answer, char *type)
{
    Grpc__Reflection__V1__ExtensionNumberResponse response =
        GRPC__REFLECTION__V1__EXTENSION_NUMBER_RESPONSE__INIT;
    if (find_file(file_holds, bytes_of(type)).data == NULL) {
        return say_error(grpc, answer, WEIR_ENOENT, "there is no such message");
    }
    response.base_type_name = type;
    answer->message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ALL_EXTENSION_NUMBERS_RESPONSE;
    answer->all_extension_numbers_response = &response;
    return say(grpc, answer);
}

static bool answer_request(struct grpc_call *grpc, reflection_request *request)
{
    reflection_response answer = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;
    answer.valid_host = request->host;
    answer.original_request = request;
    switch (request->message_request_case) {
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_LIST_SERVICES:
        return say_services(grpc, &answer);
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_BY_FILENAME:
        return say_file(grpc, &answer, find_file(has_name, bytes_of(request->file_by_filename)));
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_SYMBOL:
        return say_file(grpc, &answer,
                        find_file(file_holds, bytes_of(request->file_containing_symbol)));
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_EXTENSION:
        return say_error(grpc, &answer, WEIR_ENOENT, "there are no extensions");
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_ALL_EXTENSION_NUMBERS_OF_TYPE:
        return say_no_extensions(grpc, &answer, request->all_extension_numbers_of_type);
    default:
        return say_error(grpc, &answer, WEIR_EINVAL, "the request asks for nothing");
    }
}

/* --- The stream --- */

static void close_reading(struct arena_disposable *disposable)
{
    arena_finish(&((struct reading *)(void *)disposable)->arena);
}

static struct reading *create_reading(struct grpc_call *grpc)
{
    struct reading *self = arena_try_zero(&grpc->x->arena, 1, sizeof *self);
    if (self != NULL) {
        arena_init(&self->arena, NULL, 0, 0);
        self->close.dispose = close_reading;
        arena_dispose(&grpc->x->arena, &self->close);
    }
    return self;
}

static void begin(struct grpc_call *grpc, uint64_t size)
{
    if (size > REQUEST_BYTES_MAX) {
        grpc_finish(grpc, WEIR_ETOOBIG, "the request is too long");
        return;
    }
    if (grpc->user == NULL) {
        grpc->user = create_reading(grpc);
    }
    struct reading *self = grpc->user;
    if (self == NULL) {
        grpc_finish(grpc, WEIR_ENOMEM, "out of memory for this call");
        return;
    }
    self->size = 0;
}

static void bytes(struct grpc_call *grpc, struct bytes part)
{
    struct reading *self = grpc->user;
    memcpy(self->request + self->size, part.data, part.size);
    self->size += part.size;
}

static void end(struct grpc_call *grpc)
{
    struct reading *self = grpc->user;
    ProtobufCMessage *request =
        grpc_message_read(&grpc__reflection__v1__server_reflection_request__descriptor,
                          (struct bytes){ self->request, self->size }, &self->arena);
    if (request == NULL) {
        grpc_finish(grpc, WEIR_EINVAL, "the request is no message of this call");
    } else if (!answer_request(grpc, (reflection_request *)(void *)request)) {
        grpc_finish(grpc, WEIR_ENOMEM, "out of memory for the answer");
    }
}

static void half_closed(struct grpc_call *grpc)
{
    grpc_finish(grpc, WEIR_OK, NULL);
}

static void canceled(struct grpc_call *grpc)
{
    grpc_finish(grpc, WEIR_ECANCELED, NULL);
}

/* The answer has left: the next request. */
static void drained(struct grpc_call *grpc)
{
    arena_reset(arena_of(grpc));
    grpc_resume(grpc);
}

static void drain(struct grpc_call *grpc)
{
    grpc_finish(grpc, WEIR_EDRAINING, NULL);
}

const struct grpc_reader grpc_reflection = {
    .begin = begin,
    .bytes = bytes,
    .end = end,
    .half_closed = half_closed,
    .canceled = canceled,
    .drained = drained,
    .drain = drain,
};
