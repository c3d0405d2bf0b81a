"""The same weights and data through this code and through another: how far apart are they?"""
