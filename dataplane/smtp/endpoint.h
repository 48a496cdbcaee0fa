/* endpoint.h: what a lane learns of its endpoints, and when each may be called again. `endpoint` is an index into the path's. */
#ifndef DATAPLANE_SMTP_ENDPOINT_H
#define DATAPLANE_SMTP_ENDPOINT_H

#include "lane.h"

/* Its turn comes again after a pause, which doubles each time. */
void lane_endpoint_failed(struct lane *lane, uint8_t endpoint, uint64_t now_us);
/* Has the path a source of its family? */
bool lane_endpoint_has_source(const struct lane *lane, uint32_t endpoint);
/* Until when it rests, by control's word or by what happened here; in the past: it does not. */
uint64_t lane_endpoint_rests_until(const struct lane *lane, uint32_t endpoint);
/* It gave a verdict. */
void lane_endpoint_worked(struct lane *lane, uint8_t endpoint);
/* The connection ended within a transaction (SMTP.md section 1: next host). Where the path has another address this one waits a little;
 * *told: it is the second time without a verdict between, or the first without any before, so that control should know. True: another may
 * be tried now. */
bool lane_transaction_lost(struct lane *lane, uint8_t endpoint, bool *told, uint64_t now_us);
/* MAY: TLS failed, the endpoint is called without it for path.broken_tls_s, or at least once. */
void lane_endpoint_tls_broken(struct lane *lane, uint8_t endpoint, uint64_t now_us);
/* Takes note of a call: without TLS? */
bool lane_endpoint_without_tls(struct lane *lane, uint8_t endpoint, uint64_t now_us);
/* TLS failed where the path does not do without: the next endpoint's turn. */
void lane_endpoint_tls_failed(struct lane *lane, uint8_t endpoint, enum tls_failure failure, uint64_t now_us);
/* A session became ready. True: the first since the endpoint last failed. */
bool lane_endpoint_ready(struct lane *lane, uint8_t endpoint);
/* The server would not have the credentials: it rests, and where that is `final` so does the lane, because they are the same everywhere. */
void lane_auth_failed(struct lane *lane, uint8_t endpoint, bool final, uint64_t now_us);
bool lane_auth_rests(const struct lane *lane, uint64_t now_us);

#endif
