"""The Telegram interface: a bot that receives messages of allowed chats by long polling, and answers them."""
