/* auth.h: what a client says to AUTH, decoded and compared: PLAIN (RFC 4616), LOGIN, CRAM-MD5 (RFC 2195), XOAUTH2, OAUTHBEARER (RFC 7628).
 * The secret of a user is the password, and the token of the last two. */
#ifndef BENCH_SINK_AUTH_H
#define BENCH_SINK_AUTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { AUTH_USERS_MAX = 64, AUTH_SECRET_BYTES_MAX = 2048, AUTH_USER_NONE = 0xff, AUTH_CHALLENGE_BYTES = 128 };

enum auth_mechanism { AUTH_PLAIN, AUTH_LOGIN, AUTH_CRAM_MD5, AUTH_XOAUTH2, AUTH_OAUTHBEARER, AUTH_MECHANISMS };

struct auth_user {
    const char *name, *secret;
};

struct auth_users {
    uint32_t count;
    struct auth_user users[AUTH_USERS_MAX];
};

/* "PLAIN", ... as they stand in EHLO's reply. */
const char *auth_mechanism_text(enum auth_mechanism mechanism);
/* The mechanism that `text` begins with, up to a space or its end; AUTH_MECHANISMS: none. `*rest` is what follows the space, or NULL. */
enum auth_mechanism auth_mechanism_find(const char *text, size_t length, const char **rest);

/* One answer of a client in base64 ("=" is an empty one). The index of the user whose secret it holds, or AUTH_USER_NONE. `challenge` is
 * that of CRAM-MD5, not encoded. Not for LOGIN. */
uint8_t auth_check(const struct auth_users *users, enum auth_mechanism mechanism, const char *challenge, const char *answer, size_t length);
/* LOGIN's two answers: the user's index or AUTH_USER_NONE; and whether this is that user's password. */
uint8_t auth_login_user(const struct auth_users *users, const char *answer, size_t length);
bool auth_login_password(const struct auth_users *users, uint8_t user, const char *answer, size_t length);

#endif
