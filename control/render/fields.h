/* fields.h: the header fields of a composed message: whose it is, whom it is for, what the producer added. */
#ifndef CONTROL_RENDER_FIELDS_H
#define CONTROL_RENDER_FIELDS_H

#include "rendering.h"

/* Each writes to r->writer. 0, or -EINVAL with a sentence in r->error. */
int fields_write(struct rendering *r);         /* all of them, in order */
int fields_write_senders(struct rendering *r); /* From, Sender, Reply-To */
int fields_write_subject(struct rendering *r);
int fields_write_custom(struct rendering *r); /* those of the job's and the recipient's `headers` */

/* Are these the ones that r->prepared was made of? */
bool fields_senders_are_prepared(const struct rendering *r);
bool fields_custom_are_prepared(const struct rendering *r);

#endif
