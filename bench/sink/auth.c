/* auth.c: base64 and five ways to tell a secret. */
#include "auth.h"

#include "command.h"
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <wolfssl/options.h>
#include <wolfssl/wolfcrypt/coding.h>
#include <wolfssl/wolfcrypt/hmac.h>

struct decoded {
    uint32_t length;
    char bytes[COMMAND_AUTH_BYTES_MAX];
};

static const char *const mechanism_names[AUTH_MECHANISMS] = {"PLAIN", "LOGIN", "CRAM-MD5", "XOAUTH2", "OAUTHBEARER"};

const char *auth_mechanism_text(enum auth_mechanism mechanism) {
    return mechanism_names[mechanism];
}

enum auth_mechanism auth_mechanism_find(const char *text, size_t length, const char **rest) {
    const char *space = memchr(text, ' ', length);
    size_t name = space == NULL ? length : (size_t)(space - text);
    *rest = space == NULL ? NULL : space + 1;
    for (int i = 0; i < AUTH_MECHANISMS; i++)
        if (strlen(mechanism_names[i]) == name && strncasecmp(mechanism_names[i], text, name) == 0)
            return (enum auth_mechanism)i;
    return AUTH_MECHANISMS;
}

/* The bytes, and a NUL behind them. */
static bool decode(const char *text, size_t length, struct decoded *decoded) {
    word32 room = sizeof(decoded->bytes) - 1;
    decoded->length = 0;
    decoded->bytes[0] = '\0';
    if (length == 0 || (length == 1 && text[0] == '='))
        return true;
    if (length >= sizeof(decoded->bytes) || memchr(text, '\n', length) != NULL ||
        Base64_Decode((const byte *)text, (word32)length, (byte *)decoded->bytes, &room) != 0)
        return false;
    decoded->length = room;
    decoded->bytes[room] = '\0';
    return true;
}

static uint8_t find(const struct auth_users *users, const char *name, size_t length) {
    for (uint32_t i = 0; i < users->count; i++)
        if (strlen(users->users[i].name) == length && memcmp(users->users[i].name, name, length) == 0)
            return (uint8_t)i;
    return AUTH_USER_NONE;
}

static bool secret_is(const struct auth_users *users, uint8_t user, const char *secret, size_t length) {
    return user != AUTH_USER_NONE && strlen(users->users[user].secret) == length && memcmp(users->users[user].secret, secret, length) == 0;
}

/* [authzid] NUL authcid NUL password */
static uint8_t check_plain(const struct auth_users *users, const struct decoded *answer) {
    const char *end = answer->bytes + answer->length, *name = memchr(answer->bytes, '\0', answer->length);
    const char *password = name == NULL ? NULL : memchr(name + 1, '\0', (size_t)(end - name - 1));
    if (password == NULL)
        return AUTH_USER_NONE;
    uint8_t user = find(users, name + 1, (size_t)(password - name - 1));
    return secret_is(users, user, password + 1, (size_t)(end - password - 1)) ? user : AUTH_USER_NONE;
}

/* name SP hex of HMAC-MD5 over the challenge */
static uint8_t check_cram_md5(const struct auth_users *users, const char *challenge, const struct decoded *answer) {
    const char *space = memrchr(answer->bytes, ' ', answer->length);
    uint8_t user = space == NULL ? AUTH_USER_NONE : find(users, answer->bytes, (size_t)(space - answer->bytes));
    if (user == AUTH_USER_NONE || answer->bytes + answer->length - space - 1 != 2 * WC_MD5_DIGEST_SIZE)
        return AUTH_USER_NONE;
    Hmac hmac;
    uint8_t digest[WC_MD5_DIGEST_SIZE];
    const char *secret = users->users[user].secret;
    if (wc_HmacInit(&hmac, NULL, INVALID_DEVID) != 0)
        return AUTH_USER_NONE;
    bool good = wc_HmacSetKey(&hmac, WC_MD5, (const byte *)secret, (word32)strlen(secret)) == 0 &&
                wc_HmacUpdate(&hmac, (const byte *)challenge, (word32)strlen(challenge)) == 0 && wc_HmacFinal(&hmac, digest) == 0;
    wc_HmacFree(&hmac);
    char hex[2 * WC_MD5_DIGEST_SIZE + 1];
    for (int i = 0; good && i < WC_MD5_DIGEST_SIZE; i++)
        snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    return good && memcmp(hex, space + 1, sizeof(hex) - 1) == 0 ? user : AUTH_USER_NONE;
}

/* The value behind `key` in fields that end with 0x01. */
static const char *field(const struct decoded *answer, const char *key, size_t *length) {
    const char *at = answer->bytes, *end = answer->bytes + answer->length;
    while (at < end) {
        const char *stop = memchr(at, 1, (size_t)(end - at));
        if (stop == NULL)
            return NULL;
        if ((size_t)(stop - at) >= strlen(key) && strncasecmp(at, key, strlen(key)) == 0) {
            *length = (size_t)(stop - at) - strlen(key);
            return at + strlen(key);
        }
        at = stop + 1;
    }
    return NULL;
}

/* XOAUTH2: user=NAME ^A auth=Bearer TOKEN ^A ^A. OAUTHBEARER: n,a=NAME, ^A ... auth=Bearer TOKEN ^A ^A (RFC 7628 3.1). */
static uint8_t check_bearer(const struct auth_users *users, enum auth_mechanism mechanism, const struct decoded *answer) {
    size_t name_bytes = 0, token_bytes = 0;
    const char *name = field(answer, mechanism == AUTH_XOAUTH2 ? "user=" : "n,a=", &name_bytes);
    const char *token = field(answer, "auth=Bearer ", &token_bytes);
    if (name == NULL || token == NULL || answer->length < 2 || memcmp(answer->bytes + answer->length - 2, "\1\1", 2) != 0)
        return AUTH_USER_NONE;
    if (mechanism == AUTH_OAUTHBEARER && (name_bytes == 0 || name[--name_bytes] != ','))
        return AUTH_USER_NONE;
    uint8_t user = find(users, name, name_bytes);
    return secret_is(users, user, token, token_bytes) ? user : AUTH_USER_NONE;
}

uint8_t auth_check(const struct auth_users *users, enum auth_mechanism mechanism, const char *challenge, const char *answer,
                   size_t length) {
    struct decoded decoded;
    if (!decode(answer, length, &decoded))
        return AUTH_USER_NONE;
    switch (mechanism) {
    case AUTH_PLAIN:
        return check_plain(users, &decoded);
    case AUTH_CRAM_MD5:
        return check_cram_md5(users, challenge, &decoded);
    case AUTH_XOAUTH2:
    case AUTH_OAUTHBEARER:
        return check_bearer(users, mechanism, &decoded);
    case AUTH_LOGIN:
    case AUTH_MECHANISMS:
        break;
    }
    return AUTH_USER_NONE;
}

uint8_t auth_login_user(const struct auth_users *users, const char *answer, size_t length) {
    struct decoded decoded;
    return decode(answer, length, &decoded) ? find(users, decoded.bytes, decoded.length) : AUTH_USER_NONE;
}

bool auth_login_password(const struct auth_users *users, uint8_t user, const char *answer, size_t length) {
    struct decoded decoded;
    return decode(answer, length, &decoded) && secret_is(users, user, decoded.bytes, decoded.length);
}
